"""Packs a trained model of any rate: weights in half precision, their size, and what the model card and README say.

    python tools/package_model.py MODEL OUT --name flowmo-mini --results DIR [--start FILE]

MODEL: what ``flowmo.load`` takes. OUT: a folder; gets NAME.safetensors, card.json and card.md. DIR: results of
``flowmo evaluate MODEL DATA --bits-per-token ...``, of which the card's table of rates is made. --start: the file that
training began from, whose fingerprint is compared: a fixed encoder keeps every token. tools/install_models.py then puts
the folder into the package.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowmo.config import FlowMoConfig, to_dict
from flowmo.errors import FlowMoError, WeightsError
from flowmo.files import replacing
from flowmo.presets import preset
from flowmo.weights import load, load_model, read_about, save_model, weights_path

MOST_BYTES = 64_000_000
"""Of all packaged weights together."""
SHOWN = ("psnr", "ssim", "lpips_alex", "lpips_vgg", "rfid", "kid")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="flowmo-mini", help="of the preset, and of the file")
    parser.add_argument("--results", type=Path, help="folder of results of flowmo evaluate")
    parser.add_argument("--start", type=Path, help="the closed-form start that training began from")
    arguments = parser.parse_args(argv)
    try:
        card = packed(arguments)
    except FlowMoError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(card, indent=1))
    return 0


def packed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the folder and return the card. Raises WeightsError for weights whose tokens half precision changes."""
    model = load(arguments.model)
    about = {k: v for k, v in read_about(weights_path(arguments.model)).items() if k in ("images", "weights")}
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{arguments.name}.safetensors"
    save_model(model, path, about=about)
    back = load_model(path)
    if back.fingerprint() != model.fingerprint():
        raise WeightsError(f"{path}: its tokens are others in half precision; train from a start in half precision")
    same_tokens = None if arguments.start is None else load(arguments.start).fingerprint() == model.fingerprint()
    card = {
        "name": arguments.name,
        "bytes": path.stat().st_size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "fingerprint": f"{model.fingerprint():08x}",
        "tokens_of_the_start": same_tokens,
        "is_the_preset": not differs(model.config, preset(arguments.name)),
        "class_bits": model.config.transform.class_bits if model.config.transform else None,
        "about": about,
        "rates": rates(arguments.results) if arguments.results else [],
    }
    with replacing(arguments.out / "card.json") as part:
        part.write_text(json.dumps(card, indent=1) + "\n")
    with replacing(arguments.out / "card.md") as part:
        part.write_text(table(card["rates"]))
    return card


def differs(config: FlowMoConfig, wanted: FlowMoConfig) -> bool:
    """Return whether two configurations differ in more than the sampler, which is chosen for the trained weights."""
    return to_dict(replace(config, sampler=wanted.sampler)) != to_dict(wanted)


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
