"""How much fine texture a model puts where its originals have next to none, as a grid of few pixels does.

    python tools/measure_grid.py DATA MODEL... [--bits-per-token 18 56] [--count 40]

Prints the texture of reconstructions over that of their originals, in even blocks of 16 x 16 pixels and in those of
middling texture. Texture is the root mean square, in steps of 8 bits, of what a Gaussian blur of 1.5 pixels takes from
the grey image; even is below 2, middling from 2 to 6. A model that adds no grid has 1 in even blocks, and one that
blurs is below 1 in the others.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

from flowmo import FlowMo
from flowmo.data import read_first, to_float, to_uint8
from flowmo.weights import load

BLOCK, DEVIATION, EVEN, MIDDLING = 16, 1.5, 2.0, 6.0


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--bits-per-token", type=int, nargs="+", default=[18, 56])
    parser.add_argument(
        "--count", type=int, default=40, help="validation photographs of 256 pixels (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    images = read_first(arguments.data, None, (256, 256), print, arguments.count, eight_bits=True).images
    original = texture(to_float(images))
    even, middling = original < EVEN, (original >= EVEN) & (original < MIDDLING)
    print(f"originals: {original[even].mean():.2f} in {even.float().mean():.0%} even blocks", end=", ")
    print(f"{original[middling].mean():.2f} in {middling.float().mean():.0%} of middling texture")
    for name in arguments.models:
        model = load(name)
        for bits in arguments.bits_per_token:
            found = torch.cat(
                [reconstructed(model, to_float(images[i : i + 8]), bits, i) for i in range(0, len(images), 8)]
            )
            ratios = [float(found[where].mean() / original[where].mean()) for where in (even, middling)]
            print(f"{name}, {bits} bits a token: even {ratios[0]:.2f}, middling {ratios[1]:.2f}", flush=True)


@torch.no_grad()
def reconstructed(model: FlowMo, images: Tensor, bits: int, first: int) -> Tensor:
    """Return the texture of the reconstructions of images B 3 H W in [-1, 1], the first of which has seed ``first``."""
    tokens = model.tokenize(images).truncate(bits=bits)
    return texture(to_float(to_uint8(model.detokenize(tokens, seed=range(first, first + len(images))))))


def texture(images: Tensor) -> Tensor:
    """Return the texture of every block of images B 3 H W in [-1, 1]: B 1 h w."""
    grey = (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True) * 127.5
    kernel = torch.exp(-(torch.arange(-4.0, 5.0) ** 2) / 2 / DEVIATION**2)
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    high = grey - F.conv2d(F.pad(grey, (4,) * 4, mode="reflect"), kernel[None, None])
    return F.avg_pool2d(high.square(), BLOCK).sqrt()


if __name__ == "__main__":
    main()
