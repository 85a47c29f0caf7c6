"""How flowmo generate draws: its flags, what a generator has stored, and the size of its pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from command_support import Command
from PIL import Image

from flowmo.generation import load_generator, save_generator

DOG, FISH = "0001-labrador-retriever", "0000-goldfish"  # names of files


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_settings_matter(generate: Command, generators: Path) -> None:
    seen = set()
    for i, more in enumerate(
        [
            [],
            ["--temperature", 0, "--final-temperature", 0, "--choice-noise", 0],
            ["--guidance", 8],
            ["--guidance", 8, "--guidance-decay", "linear"],
            ["--schedule", "linear", "--choice-noise", 30],
            ["--decoder-guidance", 3],
            ["--convention", "titok", "--temperature", 1.3, "--choice-noise", 2.8],
        ]
    ):
        arguments = ["--generator", generators / "a", "--class", 0, "--count", 1, "--out", f"{i}", *more]
        assert generate(*arguments).code == 0
        seen.add(pixels(f"{i}/{FISH}-0000.png").tobytes())
    assert len(seen) == 7
    assert generate("--generator", generators / "a", "--any-class", "--count", 2, "--out", "any").code == 0
    assert sorted(p.name for p in Path("any").iterdir()) == ["any-0000.png", "any-0001.png", "grid.png"]


def test_how_tokens_are_drawn_is_stored_with_the_generator(generate: Command, generators: Path) -> None:
    generator = load_generator(generators / "a")
    own = replace(generator.config.decoding, guidance_scale=8.0, final_temperature=0.1)
    generator.config = replace(generator.config, decoding=own)
    save_generator(generator, Path("own.safetensors"), torch.float32)
    more = ("--class", 0, "--count", 1, "--out")
    assert generate("--generator", "own.safetensors", *more, "stored").code == 0
    assert generate("--generator", "own.safetensors", *more, "told", "--final-temperature", 0.5).code == 0
    assert (
        generate("--generator", generators / "a", *more, "asked", "--guidance", 8, "--final-temperature", 0.1).code == 0
    )
    stored, told, asked = (pixels(f"{out}/{FISH}-0000.png").tobytes() for out in ("stored", "told", "asked"))
    assert stored == asked != told


def test_a_guidance_that_acts_nowhere_is_said(generate: Command, generators: Path) -> None:
    arguments = ("--generator", generators / "a", "--class", 0, "--count", 1, "--force")
    idle = generate(*arguments, "--decoder-guidance", 3, "--decoder-steps", 1)
    assert "note: --decoder-guidance 3 changes nothing" in idle.err
    for other in ((), ("--decoder-guidance", 3), ("--decoder-guidance", 1, "--decoder-steps", 1)):
        assert not generate(*arguments, *other).err


def test_pictures_of_another_size(generate: Command, generators: Path) -> None:
    """Made smaller, as those of a generator of enlarged pictures are before they are measured."""
    arguments = ["--generator", generators / "a", "--count", 2, "--class", 1, "--npz", "samples.npz"]
    assert generate(*arguments, "--out", "own").code == 0
    assert generate(*arguments, "--out", "small", "--size", 16, "--force").code == 0
    with np.load("samples.npz") as samples:
        assert samples["arr_0"].shape == (2, 16, 16, 3)
        assert np.array_equal(samples["arr_0"][0], pixels(f"small/{DOG}-0000.png"))
    small = np.asarray(Image.open(f"own/{DOG}-0000.png").resize((16, 16), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(small - pixels(f"small/{DOG}-0000.png")).mean() < 0.5  # Pillow rounds and clips on the way
    assert "not a whole number of at least 1" in generate(*arguments, "--size", 0).err
