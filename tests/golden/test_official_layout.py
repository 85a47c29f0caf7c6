"""The released checkpoints' own lists of keys: every tensor has its place or is known to be unused (B5)."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from flowmo.presets import flowmo_fewer_params, flowmo_hi, flowmo_lo
from flowmo.tokenizer import FlowMo
from flowmo.weights import official_layout, unused_keys
from flowmo.weights.official import config_from_shapes

RELEASES = {
    "lo": (flowmo_lo, 945_374_085),
    "hi": (flowmo_hi, 945_520_081),
    "fewer": (flowmo_fewer_params, 517_117_861),
}


def keys(shared: Path, name: str) -> dict[str, tuple[int, ...]]:
    stored = json.loads((shared / "golden" / f"official_{name}_keys.json").read_text())
    return {key: tuple(shape) for key, shape in stored.get("keys", stored).items()}


@pytest.mark.parametrize("name", RELEASES)
def test_our_layout_is_the_released_one(name: str, shared: Path) -> None:
    preset, total = RELEASES[name]
    layout = {key: slot.shape for key, slot in official_layout(preset()).items()}
    assert layout == keys(shared, name)
    assert sum(math.prod(shape) for shape in layout.values()) == total


@pytest.mark.parametrize("name", RELEASES)
def test_the_preset_can_be_read_off_the_shapes(name: str, shared: Path) -> None:
    assert config_from_shapes(keys(shared, name)) == RELEASES[name][0]()


@pytest.mark.parametrize("name", RELEASES)
def test_every_parameter_is_filled_once_and_completely(name: str) -> None:
    config = RELEASES[name][0]()
    with torch.device("meta"):
        parameters = {name: tuple(p.shape) for name, p in FlowMo(config).named_parameters()}
    slots = [slot for slot in official_layout(config).values() if slot.name is not None]
    assert Counter(slot.name for slot in slots) == Counter(list(parameters))
    for slot in slots:
        assert tuple(slot.part(torch.empty(slot.shape, device="meta")).shape) == parameters[slot.name]


def test_what_is_unused_is_what_the_release_never_reads() -> None:
    """The encoder's time and modulation weights are the 59.8 M of B5; the rest is a stream that nothing reads."""
    layout = official_layout(flowmo_lo())
    unused = unused_keys(flowmo_lo())
    conditioning = [k for k in unused if k.startswith("encoder.") and ("_mod." in k or "time_in" in k or "adaLN" in k)]
    assert sum(math.prod(layout[k].shape) for k in conditioning) == pytest.approx(59.8e6, rel=0.01)
    others = set(unused) - set(conditioning)
    last = ("encoder.double_blocks.7.img_", "decoder.double_blocks.15.txt_", "encoder.final_layer_img", "decoder.final")
    assert all(k.startswith(last) for k in others)
