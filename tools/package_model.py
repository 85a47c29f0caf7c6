"""Packs a trained model of any rate: weights in half precision, their size, and what the model card and README say.

    python tools/package_model.py MODEL OUT --name flowmo-mini --results DIR [--start FILE] [--install]

MODEL: what ``flowmo.load`` takes. OUT: a folder; gets NAME.safetensors, card.json and card.md. DIR: results of
``flowmo evaluate MODEL DATA --bits-per-token ...``, of which the card's table of rates is made. --start: the file that
training began from, whose size and fingerprint are compared: a fixed encoder keeps every token. --install: put the
weights among the packaged ones and remove no other. Fails where all packaged weights together would exceed 64 MB.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from flowmo.config import to_dict
from flowmo.errors import FlowMoError, WeightsError
from flowmo.files import replacing
from flowmo.presets import preset
from flowmo.weights import load, load_model, read_about, save_model, weights_path

ROOT = Path(__file__).parents[1] / "src" / "flowmo"
FOLDERS = (ROOT / "weights" / "packaged", ROOT / "generation" / "packaged")
MOST_BYTES = 64_000_000
SHOWN = ("psnr", "ssim", "lpips_alex", "lpips_vgg", "rfid", "kid")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="flowmo-mini", help="of the preset, and of the file")
    parser.add_argument("--results", type=Path, help="folder of results of flowmo evaluate")
    parser.add_argument("--start", type=Path, help="the closed-form start that training began from")
    parser.add_argument("--install", action="store_true", help="put the weights among the packaged ones")
    arguments = parser.parse_args()
    try:
        card = packed(arguments)
    except FlowMoError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(card, indent=1))
    return 0


def packed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the folder and return the card. Raises WeightsError for weights that are too large, or that cannot be
    installed under that name."""
    model = load(arguments.model)
    about = {k: v for k, v in read_about(weights_path(arguments.model)).items() if k in ("images", "weights")}
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{arguments.name}.safetensors"
    save_model(model, path, about=about)
    back = load_model(path)
    if back.fingerprint() != model.fingerprint():
        raise WeightsError(f"{path}: its tokens are others in half precision; train from a start in half precision")
    others = sum(f.stat().st_size for folder in FOLDERS for f in folder.glob("*.safetensors") if f.name != path.name)
    same_tokens = None if arguments.start is None else load(arguments.start).fingerprint() == model.fingerprint()
    card = {
        "name": arguments.name,
        "bytes": path.stat().st_size,
        "bytes_with_other_packaged_weights": path.stat().st_size + others,
        "parameters": sum(p.numel() for p in model.parameters()),
        "fingerprint": f"{model.fingerprint():08x}",
        "tokens_of_the_start": same_tokens,
        "is_the_preset": to_dict(model.config) == to_dict(preset(arguments.name)),
        "allocation": list(model.config.transform.allocation) if model.config.transform else None,
        "about": about,
        "rates": rates(arguments.results) if arguments.results else [],
    }
    with replacing(arguments.out / "card.json") as part:
        part.write_text(json.dumps(card, indent=1) + "\n")
    with replacing(arguments.out / "card.md") as part:
        part.write_text(table(card["rates"]))
    if arguments.install:
        install(path, card)
    return card


def install(path: Path, card: dict[str, Any]) -> None:
    """Put the weights among the packaged ones. Raises WeightsError where they would be too many bytes, or other than
    their preset."""
    if card["bytes_with_other_packaged_weights"] > MOST_BYTES:
        raise WeightsError(
            f"all packaged weights would be {card['bytes_with_other_packaged_weights'] / 1e6:.1f} MB, more than "
            f"{MOST_BYTES / 1e6:.0f}; remove those that this model replaces first"
        )
    if not card["is_the_preset"]:
        raise WeightsError(f"{path} is not of its preset; put the allocation of card.json into presets.py first")
    shutil.copy(path, FOLDERS[0])


def rates(folder: Path) -> list[dict[str, Any]]:
    """Return a row a rate, rising, of the results in a folder."""
    rows = []
    for file in sorted(folder.glob("*.json")):
        result = json.loads(file.read_text())
        if result.get("kind") == "evaluation":
            content = result["content"]
            rows.append(
                {"bytes": content["rate"]["payload_bytes"], "bits_per_pixel": content["rate"]["bits_per_pixel"]}
                | {"images": result["data"]["count"]}
                | {name: value for name, value in content["metrics"].items() if name in SHOWN}
            )
    return sorted(rows, key=lambda row: float(row["bytes"]))


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table of Markdown."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---:"] * len(names)]
    lines += [[f"{row[name]:.4g}" if name in row else "" for name in names] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
