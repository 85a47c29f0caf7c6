"""What differs between machines: devices, and devices without float64."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import flowmo
from flowmo.cli.arguments.common import add_device_argument
from flowmo.cli.main import build_parser
from flowmo.devices import ORDER, best_device, resolve_device
from flowmo.generation.files import PACKAGED_GENERATOR, load_generator
from flowmo.weights.load import PACKAGED

PACKAGE = Path(flowmo.__file__).parent
ON_THE_CPU_BEFORE = {"quantize/usage.py": 3, "evaluation/validation.py": 1}
"""Lines that double what an earlier line of the same function has brought to the CPU."""


@pytest.mark.parametrize("there", [[], ["xpu"], ["mps", "xpu"], ["cuda", "mps"]])
def test_auto_is_the_first_that_is_there(there: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ORDER:
        monkeypatch.setattr(getattr(torch, name), "is_available", lambda name=name: name in there)
    assert best_device() == (there or ["cpu"])[0]
    assert resolve_device("auto") == best_device()
    assert resolve_device("cuda:1") == "cuda:1"
    parser = argparse.ArgumentParser()
    add_device_argument(parser)
    assert parser.parse_args([]).device == best_device()
    assert parser.parse_args(["--device", "auto"]).device == best_device()


def test_every_command_has_the_same_device_flag() -> None:
    (commands,) = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    flags = {
        name: action
        for name, command in commands.choices.items()
        for action in command._actions
        if "--device" in action.option_strings
    }
    assert {"reconstruct", "tokenize", "train", "posttrain", "distill", "train-generator", "evaluate", "app"} <= set(
        flags
    )
    assert {name for name, action in flags.items() if action.default != "auto"} == set()


def test_auto_in_python() -> None:
    assert str(flowmo.load(device="auto").device).startswith(best_device())


@pytest.mark.parametrize("name", ["gpu", "xpu:7", "meta:x", ""])
def test_a_device_that_is_not_there_is_explained(name: str) -> None:
    for load in (flowmo.load, flowmo.FlowMo.from_pretrained, load_generator):
        with pytest.raises(flowmo.ConfigError, match=f'cannot be put on {name}.*try device="cpu", or "auto"'):
            load(device=name) if load is not load_generator else load(PACKAGED_GENERATOR, name)


@pytest.mark.parametrize("name", [None, 3, "", b""])
def test_what_names_no_model_is_explained(name: object) -> None:
    with pytest.raises(flowmo.WeightsError, match=rf"flowmo\.load\(\) alone is '{PACKAGED}'"):
        flowmo.load(name)  # type: ignore[arg-type]


def test_nothing_becomes_float64_on_a_device() -> None:
    """mps has no float64: what is doubled was brought to the CPU before, in the same expression."""
    found: dict[str, int] = {}
    for path in PACKAGE.rglob("*.py"):
        lines = [line for line in path.read_text().splitlines() if re.search(r"(?<!\.cpu\(\))\.double\(\)", line)]
        if lines:
            found[path.relative_to(PACKAGE).as_posix()] = len(lines)
    assert found == ON_THE_CPU_BEFORE


def test_the_package_runs_as_a_module() -> None:
    result = subprocess.run([sys.executable, "-m", "flowmo", "--version"], capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == f"flowmo {flowmo.__version__}"
