"""The commands as a user runs them, with a small model of random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_support import Command, Result
from torch import nn

from flowmo.cli.main import main
from flowmo.generation import Generator, GeneratorConfig, TokenLayout, save_generator
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.weights import load_model, save_model

CLASSES = ["n01443537 goldfish", "n02099712 Labrador retriever", "n02123394 Persian cat"]
"""Of the generators here."""


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, lively: Callable[[nn.Module], nn.Module]) -> Path:
    """A model file for 32 x 32 pixels and 16 tokens of 18 bits, whose pictures depend on its tokens."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    model = FlowMo(tiny())
    lively(model)
    save_model(model, path, about={"images": 7})
    return path


@pytest.fixture
def compiled_shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, ...]]]:
    """In the place of a compiler something that notes what is given to it: names and shapes of the first tensor."""
    seen: list[tuple[str, tuple[int, ...]]] = []

    def compile(function: Callable[..., object], **how: object) -> Callable[..., object]:
        def run(*args: torch.Tensor, **kwargs: object) -> object:
            seen.append((function.__qualname__, tuple(args[0].shape)))
            return function(*args, **kwargs)

        return run

    monkeypatch.setattr("torch.compile", compile)
    return seen


@pytest.fixture
def flowmo(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs the command in an empty folder. ``model=False`` leaves --model out."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, model: bool = True) -> Result:
        argv = [str(argument) for argument in arguments]
        code = main([*argv, "--model", str(weights)] if model else argv)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Result(code, out, err)

    return run


@pytest.fixture(scope="session")
def generators(
    weights: Path, tmp_path_factory: pytest.TempPathFactory, lively: Callable[[nn.Module], nn.Module]
) -> Path:
    """Generators ``a`` and ``b`` of the small tokenizer, ``c`` of another, ``other.safetensors``; ``d`` without
    names."""
    path = tmp_path_factory.mktemp("generators")
    torch.manual_seed(5)
    other = FlowMo(tiny())
    lively(other)
    save_model(other, path / "other.safetensors")
    layout = TokenLayout(f"{load_model(weights).fingerprint():08x}", 16, 18, 9, (32, 32))
    config = GeneratorConfig(32, 2, 2, 3, tokens=layout)
    # of the weights as they are stored, in half precision
    theirs = f"{load_model(path / 'other.safetensors').fingerprint():08x}"
    for name, c, names in (
        ("a", config, CLASSES),
        ("b", replace(config, bits_per_group=6), CLASSES),
        ("c", replace(config, tokens=replace(layout, fingerprint=theirs)), CLASSES),
        ("d", config, []),
    ):
        generator = Generator(c, names)
        lively(generator)
        save_generator(generator, path / name / "model.safetensors", torch.float32)
    return path


@pytest.fixture
def generate(flowmo: Command, weights: Path) -> Command:
    def run(*arguments: object, tokenizer: bool = True) -> object:
        more = ["--tokenizer", weights] if tokenizer else []
        return flowmo("generate", *arguments, *more, "--mask-steps", 4, "--device", "cpu", model=False)

    return run
