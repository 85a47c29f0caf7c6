"""What `make demo` shows of a model: the sample photographs, their reconstructions, and what else so few bytes give.

    python tools/demo.py [MODEL] [--out out/demo] [--bytes 576 1792]

A model of any rate reconstructs whole photographs at two rates, beside an RGB thumbnail of the same bytes and the image
codec whose file of the same bytes, headers not counted, is the nearest to the photograph by LPIPS (Alex). OUT gets
contact-sheet.png and each reconstruction as NAME.BYTES.png. Of a model of one rate it is `flowmo reconstruct`. --figure
FILE: the sheet of the first three photographs too, for a document.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import flowmo
from flowmo import samples
from flowmo.cli.main import main as command
from flowmo.cli.printing import print_table
from flowmo.comparison.adapters import ThumbnailPeer, at_rates
from flowmo.comparison.codecs import CODECS, Codec, Distance, get_codec
from flowmo.comparison.coded import Search, code_all
from flowmo.comparison.columns import IN_WORDS, uint8_to_image
from flowmo.comparison.inputs import nearest
from flowmo.comparison.reconstructions import Reconstruction, codec_reconstructions, peer_reconstructions
from flowmo.data import read_first
from flowmo.errors import ConfigError, FlowMoError
from flowmo.evaluation.result_store import ResultStore
from flowmo.metrics.table import column
from flowmo.perceptual import load_lpips
from flowmo.viewing import contact_sheet, write_png
from flowmo.weights.load import PACKAGED


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=PACKAGED, help="as for flowmo.load (default: %(default)s)")
    parser.add_argument(
        "--pictures", dest="images", type=Path, default=samples.paths()[0].parent, help="default: the samples"
    )
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder (default: %(default)s)")
    parser.add_argument("--bytes", type=int, nargs="+", default=[576, 1792], help="a picture (default: 576 1792)")
    parser.add_argument("--figure", type=Path, help="a .png of the first three photographs")
    arguments = parser.parse_args(argv)
    try:
        model = flowmo.load(arguments.model)
        if model.config.transform is None:
            flags = ["--model", arguments.model, "--out", str(arguments.out), "--force"]
            return command(["reconstruct", str(arguments.images), *flags])
        rows = demonstrate(model, arguments.images, arguments.out, sorted(arguments.bytes))
        if arguments.figure:
            write_png(arguments.figure, contact_sheet({title: row[:3] for title, row in rows.items()}))
    except FlowMoError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def demonstrate(model: flowmo.FlowMo, folder: Path, out: Path, targets: list[int]) -> dict[str, list[Image.Image]]:
    """Write the sheet and the reconstructions, print the table of means, and return the rows of the sheet."""
    side = model.config.image_size
    read = read_first(
        str(folder), None, (side, side), lambda name, error: print(error, file=sys.stderr), eight_bits=True
    )
    images, names = read.images, [Path(name).stem for name in read.names]
    lpips, seeds = nearest(load_lpips("alex"), torch.device("cpu")), list(range(len(images)))
    codecs = list(_installed())
    chosen = {target: best_codecs(images, codecs, target, lpips) for target in targets}
    rows: dict[str, list[Image.Image]] = {"original": [uint8_to_image(image) for image in images]}
    table = []
    for target in targets:
        peers = at_rates("FlowMo", model, [target], (side, side))
        if not peers:
            raise ConfigError(f"{target} bytes are fewer than a bit a token; give more --bytes")
        made = {
            "thumbnail": list(peer_reconstructions(ThumbnailPeer(target), images, seeds, lpips)),
            "nearest codec": [one for _, one in chosen[target]],
            "FlowMo": list(peer_reconstructions(peers[-1], images, seeds, lpips)),
        }
        kinds = Counter(IN_WORDS[name] for name, _ in chosen[target])
        for label, found in made.items():
            rows[f"{label}, {target} B"] = [uint8_to_image(one.pixels) for one in found]
            about = ", ".join(f"{name} {count}" for name, count in kinds.most_common()) if "codec" in label else ""
            table.append([label, *_means(found), about])
        for name, one in zip(names, made["FlowMo"], strict=True):
            write_png(out / f"{name}.{target}.png", uint8_to_image(one.pixels))
    write_png(out / "contact-sheet.png", contact_sheet(rows))
    print_table(["", "bytes", column("psnr").heading, column("lpips_alex").heading, "codecs"], table)
    print(f"\n{len(images)} photographs of {side} x {side} pixels; bytes without headers, means over the photographs")
    print(f"NAME.BYTES.png and contact-sheet.png are in {out}")
    return rows


def best_codecs(images: Tensor, codecs: list[Codec], target: int, lpips: Distance) -> list[tuple[str, Reconstruction]]:
    """Return for each picture the codec that is the nearest by LPIPS at so many bytes, and its reconstruction.

    Raises ConfigError for a picture that no codec brings to so few bytes.
    """
    search = Search((target,), ("payload",))
    with tempfile.TemporaryDirectory() as folder:
        store = ResultStore(Path(folder) / "coded.jsonl")
        found = code_all(images, codecs, search, lpips, store, lambda _: None)
    best: list[tuple[str, Reconstruction]] = []
    for i, image in enumerate(images):
        each = []
        for codec in codecs:
            choice = found[codec.name][i]["payload", target]
            each += [(codec.name, one) for one in codec_reconstructions(codec, image[None], [choice], lpips) if one]
        if not each:
            raise ConfigError(f"no codec brings picture {i} to {target} bytes; give more --bytes")
        best.append(min(each, key=lambda pair: pair[1].lpips or 0.0))
    return best


def _installed() -> Iterator[Codec]:
    for name in CODECS:
        try:
            yield get_codec(name)
        except ConfigError as error:
            print(f"note: {error}", file=sys.stderr)


def _means(found: list[Reconstruction]) -> list[str]:
    columns = [[one.payload_bytes for one in found], [one.psnr for one in found], [one.lpips for one in found]]
    means = [sum(float(value or 0) for value in column) / len(column) for column in columns]
    return [f"{means[0]:.0f}", f"{means[1]:.2f}", f"{means[2]:.3f}"]


if __name__ == "__main__":
    sys.exit(main())
