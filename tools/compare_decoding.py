"""Passes of the decoder against quality and speed; `tools/render_readme.py` makes the table.

    python tools/compare_decoding.py results/decoding.json LABEL=MODEL=RESULT,RESULT,... LABEL=MODEL=RESULT,... ...

MODEL: its weights. RESULT: the JSON that `flowmo evaluate` wrote of it, one a seed, in the same order for all, with the
sampler of this row; its table of pictures lies beside it. Every row is compared with the first one, and all decode the
same tokens. Speed is measured here: nothing else should run meanwhile. runs/distill.sh makes them all.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from flowmo import load, samples
from flowmo.data import center_crop, open_image, shorter_side_to, to_tensor
from flowmo.experiments.decoding import compare_decoding
from flowmo.files import replacing
from flowmo.provenance import code_version


def sample_pictures(size: int, count: int) -> torch.Tensor:
    """The packaged pictures, as often as needed: count 3 size size in [-1, 1]."""
    images = [shorter_side_to(open_image(path).image, size) for path in samples.paths()]
    tensors = [to_tensor(center_crop(image, size)) for image in images]
    return torch.stack([tensors[i % len(tensors)] for i in range(count)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("rows", nargs="+", metavar="LABEL=MODEL=RESULT,RESULT,...")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="pictures at a time (default: 16)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="rounds of all rows (default: 5)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: cpu)")
    arguments = parser.parse_args()
    models, rows = {}, {}
    for text in arguments.rows:
        label, name, paths = text.rsplit("=", 2)
        models[name] = models.get(name) or load(name, device=arguments.device)
        rows[label] = (models[name], [Path(path) for path in paths.split(",")])
    size = next(iter(models.values())).config.image_size
    content = compare_decoding(rows, sample_pictures(size, arguments.batch_size), arguments.repeats)
    with replacing(arguments.out) as part:
        part.write_text(json.dumps(content | {"code": code_version()}, indent=1, allow_nan=False) + "\n")
    for label, row in content["models"].items():
        print(
            f"{label}: {row['passes']} passes, {row['images_per_second']:.2f} images/s ({row['speedup']:.2f} x), "
            + ", ".join(f"{metric} {value:.4f}" for metric, value in row["metrics"].items())
        )


if __name__ == "__main__":
    main()
