"""Measure a model on held-out pictures and write results/*.json; `tools/render_readme.py` makes the table of it.

    python tools/measure.py DATA results/flowmo-mini-64.json [--model NAME_OR_PATH] [--count 1000]

For each of the first COUNT pictures of the validation split: PSNR (8-bit, per picture) and LPIPS of the stored
sampler, of one step from t = 1, of an RGB thumbnail of the same bits, and of the sampler given another picture's code.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import subprocess
from collections import defaultdict
from pathlib import Path

import torch

from flowmo.config import to_dict
from flowmo.data import center_crop, open_images, shorter_side_to, to_tensor
from flowmo.evaluation.pixels import psnr, thumbnail
from flowmo.files import replacing
from flowmo.perceptual import load_lpips
from flowmo.weights import load
from flowmo.weights.load import PACKAGED


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default=PACKAGED)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=50)
    arguments = parser.parse_args()
    model = load(arguments.model)
    networks = {name: load_lpips(name) for name in ("alex", "vgg")}
    source, config = open_images(arguments.data, split="validation"), model.config
    size, count = config.image_size, min(arguments.count, len(source))
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    digest = hashlib.sha256()
    for start in range(0, count, arguments.batch_size):
        chosen = range(start, min(start + arguments.batch_size, count))
        x = torch.stack([to_tensor(center_crop(shorter_side_to(source[i], size), size)) for i in chosen])
        digest.update(x.numpy().tobytes())
        tokens, seeds = model.tokenize(x), list(chosen)
        sampled = model.detokenize(tokens, seed=seeds)
        outputs = {
            "sampler": sampled,
            "one step": model.detokenize(tokens, num_steps=1, guidance_scale=1.0, seed=seeds),
            "thumbnail of the same bits": thumbnail(x, config.num_tokens * config.bits_per_token),
            "another picture's code": sampled.roll(1, 0),
        }
        for name, output in outputs.items():
            values[name]["psnr"] += psnr(output, x).tolist()
            for network, lpips in networks.items():
                values[name][f"lpips_{network}"] += lpips(output, x).tolist()
        print(f"{chosen.stop} of {count}", flush=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    rows = {
        name: {metric: sum(numbers) / len(numbers) for metric, numbers in metrics.items()}
        for name, metrics in values.items()
    }
    ours, theirs = (values[name]["lpips_alex"] for name in ("sampler", "thumbnail of the same bits"))
    better = [a < b for a, b in zip(ours, theirs, strict=True)]
    result = {
        "model": str(arguments.model),
        "fingerprint": f"{model.fingerprint():08x}",
        "data": source.describe().split(" of ")[0],
        "count": count,
        "pictures_sha256": digest.hexdigest(),
        "bits_per_pixel": config.bits_per_pixel,
        "bytes": config.num_tokens * config.bits_per_token / 8,
        "sampler": to_dict(config.sampler),
        "seed": "one a picture, its index",
        "psnr": "mean over pictures, 8-bit rounded",
        "rows": rows,
        "share_with_lower_lpips_than_thumbnail": sum(better) / len(better),
        "commit": commit,
        "machine": f"{platform.machine()} CPU, torch {torch.__version__}",
    }
    with replacing(arguments.out) as part:
        part.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
