"""Choose the sampler of a trained model on held-out pictures and store it with the weights.

    python tools/choose_sampler.py WEIGHTS DATA OUT.safetensors [--count 128]

The best steps, rho and guidance of a small model are its own (Section 3.4 tunes rho for the paper's). Every candidate
reconstructs the same pictures, taken from the end of DATA's validation split. The lowest LPIPS (Alex) wins among those
whose PSNR is at most half a dB below the best.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path

import torch

from flowmo.config import SamplerConfig
from flowmo.data import center_crop, open_images, shorter_side_to, to_tensor
from flowmo.evaluation.pixels import psnr
from flowmo.perceptual import load_lpips
from flowmo.weights import load, read_about, save_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=128)
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--rho", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    parser.add_argument("--interval", type=float, nargs=2, default=[0.1, 0.9], help="of noise levels with guidance")
    arguments = parser.parse_args()
    model, lpips = load(arguments.weights), load_lpips("alex")
    source, size = open_images(arguments.data, split="validation"), model.config.image_size
    chosen = range(len(source) - arguments.count, len(source))
    images = torch.stack([to_tensor(center_crop(shorter_side_to(source[i], size), size)) for i in chosen])
    tokens, results = model.tokenize(images), []
    print("steps   rho  guidance   PSNR   LPIPS (Alex)")
    one_step = [(1, float("inf"), 1.0)]
    for steps, rho, scale in one_step + list(itertools.product(arguments.steps, arguments.rho, arguments.guidance)):
        result = model.detokenize(tokens, num_steps=steps, rho=rho, guidance_scale=scale, seed=list(range(len(images))))
        distance, quality = float(lpips(result, images).mean()), float(psnr(result, images).mean())
        print(f"{steps:5d} {rho:5.1f} {scale:9.2f} {quality:6.2f} {distance:14.4f}", flush=True)
        results.append((distance, quality, SamplerConfig(steps, rho, scale, tuple(arguments.interval))))
    enough = max(quality for _, quality, _ in results) - 0.5
    best = min((r for r in results if r[1] >= enough), key=lambda r: r[0])[2]
    model.config = replace(model.config, sampler=best)
    save_model(model, arguments.out, about=read_about(arguments.weights))
    print(f"{best} stored in {arguments.out}")


if __name__ == "__main__":
    main()
