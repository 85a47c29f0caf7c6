"""Controls for a generator's numbers: pictures that its samples must lie between.

    python tools/generator_controls.py OUT [--tokenizer MODEL] [--each N] [--samples NAME] [--size N]

Writes into OUT/samples, in the layout of 'flowmo generate --npz', as many pictures as the samples have: what the
tokenizer makes of the tokens of real pictures (the floor), of integers drawn evenly, and of integers drawn place by
place from their frequencies in the training part; and a set of samples with shuffled labels. Integers are those that a
generator sees. OUT is a folder of runs/generator.sh.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from flowmo import FlowMo, Tokens
from flowmo.codec import read_shard
from flowmo.data import to_uint8
from flowmo.files import replacing
from flowmo.image_utils.scale import brought_to
from flowmo.quantize.groups import grouping, regroup
from flowmo.quantize.tokens import BitOrder
from flowmo.weights import load
from flowmo.weights.load import PACKAGED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", default=PACKAGED)
    parser.add_argument("--size", type=int, help="side in pixels that the pictures are brought to, as the samples are")
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--samples", default="guidance-*", help="whose labels are shuffled (default: the first set)")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    samples = arguments.out / "samples"
    if not (own := sorted(samples.glob(f"{arguments.samples}.npz"))):
        parser.error(f"no {arguments.samples}.npz in {samples}; make samples first, or name others with --samples")
    model = load(arguments.tokenizer, device=arguments.device)
    held_out, train = (read_shard(arguments.out / f"{part}.shard") for part in ("validation", "train"))
    assert held_out.labels is not None
    labels = held_out.labels.numpy()
    places = np.concatenate([np.flatnonzero(labels == c)[: arguments.each] for c in range(int(labels.max()) + 1)])
    bits, order = grouping(held_out.tokens.bits_per_token, held_out.tokens.bits_per_group)
    indices, known = (joined(tokens, bits, order) for tokens in (held_out.tokens[places], train.tokens))
    random = np.random.RandomState(0)
    even = torch.from_numpy(random.randint(0, 2**bits, indices.shape))
    rows = torch.from_numpy(random.randint(0, len(train.names), indices.shape))
    frequent = known.gather(0, rows)  # each place from another picture
    for name, drawn in (("floor-reconstructions", indices), ("control-even", even), ("control-frequencies", frequent)):
        tokens = Tokens.from_numpy(drawn.numpy(), bits, held_out.tokens.image_size, order)
        write(samples / f"{name}.npz", decode(model, tokens, arguments.size), labels[places])
    with np.load(own[0]) as file:
        write(samples / "control-shuffled-labels.npz", file["arr_0"], random.permutation(file["arr_1"]))


def joined(tokens: Tokens, bits: int, order: BitOrder) -> torch.Tensor:
    """Return tokens as integers N L G of so many bits."""
    return regroup(tokens.indices, tokens.bits_per_group, bits, wanted_order=order)


def decode(model: FlowMo, tokens: Tokens, size: int | None) -> np.ndarray:
    """Return the pictures uint8 N H W 3 of tokens, of ``size`` pixels a side where that is given."""
    parts = []
    for i in range(0, len(tokens), 50):
        some = tokens[i : i + 50]
        images = model.detokenize(some, seed=list(range(i, i + len(some))))
        images = brought_to(images, size)
        parts.append(to_uint8(images).permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


def write(path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    if not path.exists():
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, arr_0=pixels, arr_1=labels)


if __name__ == "__main__":
    main()
