"""How much quality a model loses at sizes that it was not trained at: the table that commands warn with.

    python tools/measure_sizes.py photos256/ [--count 100] [--out src/flowmo/weights/packaged/sizes.json]

Reconstructs the same held-out photographs at several sizes, with the model's own sampler and image i from seed i, and
writes the mean PSNR in dB and LPIPS (Alex) of each. At every size an image is compared with itself at that size.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

import flowmo
from flowmo.data import fit_picture, open_images, to_tensor
from flowmo.metrics.pixels import psnr
from flowmo.perceptual import load_lpips
from flowmo.provenance import code_version
from flowmo.weights.load import PACKAGED
from flowmo.weights.sizes import FILE

RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)  # of the model's own size


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help="held-out images, at least four times as large as the model's")
    parser.add_argument("--model", default=PACKAGED, help="as for flowmo.load (default: %(default)s)")
    parser.add_argument("--count", type=int, default=100, help="images (default: 100)")
    parser.add_argument("--out", type=Path, default=FILE, help="file of the table (default: that of the package)")
    arguments = parser.parse_args(argv)
    model, lpips = flowmo.load(arguments.model), load_lpips("alex")
    source = open_images(arguments.data, split="validation")
    places = [i * len(source) // arguments.count for i in range(arguments.count)]
    images = [source[i] for i in places]
    patch, own = max(model.config.encoder.patch_size, model.config.decoder.patch_size), model.config.image_size
    rows = []
    for ratio in RATIOS:
        side = round(own * ratio / patch) * patch
        closeness, distance = [], []
        for i, image in enumerate(images):
            x = to_tensor(fit_picture(image, side, side))[None]
            with torch.inference_mode():
                y = model.reconstruct(x, seed=[i])
                closeness.append(float(psnr(y, x)))
                distance.append(float(lpips(y, x)))
        rows.append(
            {
                "side": side,
                "psnr": round(sum(closeness) / len(closeness), 2),
                "lpips_alex": round(sum(distance) / len(distance), 3),
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    content = {
        "model": arguments.model,
        "fingerprint": f"{model.fingerprint():08x}",
        "image_size": own,
        "data": f"{arguments.count} images, every {len(source) // arguments.count}th, of the {len(source):,} of "
        f"{Path(arguments.data).name}, validation",
        "seed": "image i from seed i",
        "code": code_version(),
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
