"""Controls for a generator's numbers: pictures that its samples must lie between.

    python tools/generator_controls.py OUT [--tokenizer MODEL] [--each N] [--samples NAME]

Writes into OUT/samples, in the layout of 'flowmo generate --npz', as many pictures as the samples have: what the
tokenizer makes of the tokens of real pictures (the floor), of tokens drawn evenly, and of tokens drawn place by place
from their frequencies in the training part; and a set of samples with shuffled labels. OUT is a folder of
runs/generator.sh.
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
from flowmo.weights import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", default="flowmo-mini-64")
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
    indices = held_out.tokens.indices[places]
    random = np.random.RandomState(0)
    even = torch.from_numpy(random.randint(0, 2**held_out.tokens.bits_per_group, indices.shape))
    rows = torch.from_numpy(random.randint(0, len(train.names), indices.shape))
    frequent = train.tokens.indices.gather(0, rows)  # each place from another picture
    for name, drawn in (("floor-reconstructions", indices), ("control-even", even), ("control-frequencies", frequent)):
        write(samples / f"{name}.npz", decode(model, held_out.tokens, drawn), labels[places])
    with np.load(own[0]) as file:
        write(samples / "control-shuffled-labels.npz", file["arr_0"], random.permutation(file["arr_1"]))


def decode(model: FlowMo, kind: Tokens, indices: torch.Tensor) -> np.ndarray:
    """uint8 N H W 3."""
    parts = []
    for i in range(0, len(indices), 50):
        tokens = Tokens(indices[i : i + 50], kind.bits_per_group, kind.image_size)
        images = model.detokenize(tokens, seed=list(range(i, i + len(tokens))))
        parts.append(to_uint8(images).permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


def write(path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    if not path.exists():
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, arr_0=pixels, arr_1=labels)


if __name__ == "__main__":
    main()
