"""Results on disk: whole or refused, checksums of content and not of files, nothing of this machine in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flowmo.config import SamplerConfig
from flowmo.errors import ConfigError, DataError
from flowmo.evaluation.results import (
    DataRecord,
    Result,
    describe_model,
    image_checksums,
    list_checksum,
    read_result,
    short_name,
    write_result,
)
from flowmo.presets import tiny
from flowmo.provenance import weights_checksum
from flowmo.tokenizer import FlowMo
from flowmo.weights import load_model, save_model


@pytest.fixture
def model(lively: Callable[[nn.Module], nn.Module]) -> FlowMo:
    torch.manual_seed(1)
    return lively(FlowMo(tiny()))


@pytest.fixture
def result(model: FlowMo, samples: Callable[[int], Tensor]) -> Result:
    data = DataRecord("eight samples", list_checksum(image_checksums(samples(32))), 8, (32, 32))
    record = describe_model(model, "runs/a/model.safetensors", model.config.sampler)
    return Result("evaluation", "standard", data, (record,), "seed 0", {"metrics": {"psnr": 20.5}}, 1.5)


def test_round_trip(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_result(path, result)
    assert read_result(path) == result
    assert result.models[0].name == "a"
    assert {"flowmo"} <= set(result.code)
    assert {"python", "torch", "numpy", "pillow"} <= set(result.libraries)


def test_nothing_tells_of_the_machine_but_what_matters(result: Result, tmp_path: Path) -> None:
    import socket

    command = f"flowmo evaluate {tmp_path}/m.safetensors data/a --out {tmp_path}/out"
    write_result(tmp_path / "a.json", replace(result, command=command))
    text = (tmp_path / "a.json").read_text()
    assert read_result(tmp_path / "a.json").command == "flowmo evaluate m.safetensors data/a --out out"
    assert str(tmp_path) not in text
    assert socket.gethostname() not in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"content": {"psnr": float("nan")}}, "what JSON cannot"),
        ({"content": {"psnr": torch.zeros(1)}}, "not plain JSON|what JSON cannot"),
        ({"content": {}}, "nothing was measured"),
        ({"protocol": ""}, "must be named"),
        ({"seconds": -1.0}, "negative"),
        ({"data": DataRecord("x", "0" * 64, 0, (32, 32))}, "at least 1"),
        ({"data": DataRecord("x", "abc", 1, (32, 32))}, "no SHA-256"),
    ],
)
def test_senseless_results_are_not_written(result: Result, tmp_path: Path, change: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        write_result(tmp_path / "a.json", replace(result, **change))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: len(text) // 2], "not a result that can be read"),
        (lambda text: text.replace("flowmo-result-1", "flowmo-result-2"), "flowmo-result-2.*measure it again"),
        (lambda text: "[1, 2]", "its format is None"),
        (lambda text: json.dumps(json.loads(text) | {"suprise": 1}), "suprise"),
        (lambda text: json.dumps(json.loads(text) | {"seconds": "long"}), "seconds"),
        (lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "models"}), "models"),
    ],
)
def test_damaged_results_are_refused(result: Result, tmp_path: Path, damage: Callable, said: str) -> None:
    path = tmp_path / "a.json"
    write_result(path, result)
    path.write_text(damage(path.read_text()))
    with pytest.raises(DataError, match=said):
        read_result(path)


def test_a_missing_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no result at .*a\.json"):
        read_result(tmp_path / "a.json")


def test_the_weights_checksum_is_of_the_function(model: FlowMo, tmp_path: Path) -> None:
    """The same for every file that gives the same weights; another for any other weight or setting of the network, the
    decoder's too; the sampler stands beside it."""
    save_model(model, tmp_path / "half.safetensors")
    half = load_model(tmp_path / "half.safetensors")
    save_model(half, tmp_path / "full.safetensors", dtype=torch.float32, about={"images": 9})
    again = load_model(tmp_path / "full.safetensors", sampler=SamplerConfig(num_steps=3))
    assert weights_checksum(again) == weights_checksum(half) != weights_checksum(model)
    with torch.no_grad():
        next(again.decoder.parameters()).view(-1)[0] += 1e-3
    assert again.fingerprint() == half.fingerprint()
    assert weights_checksum(again) != weights_checksum(half)
    other = FlowMo(replace(half.config, latent_positions="grid"))
    other.load_state_dict(half.state_dict())
    assert weights_checksum(other) != weights_checksum(half)


def test_picture_checksums_are_of_pixels_in_order(samples: Callable[[int], Tensor]) -> None:
    images = samples(32)
    one = image_checksums(images)
    assert len(set(one)) == 8
    assert image_checksums(images + 1e-6) == one
    assert image_checksums(((images + 1) * 127.5).round().to(torch.uint8)) == one
    assert image_checksums(images.flip(0)) == one[::-1]
    assert image_checksums(images.flatten(2).view(8, 3, 16, 64)) != one
    assert list_checksum(one) != list_checksum(one[::-1])


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("flowmo-mini", "flowmo-mini"),
        ("/a/runs/b/model.safetensors", "b"),
        ("/a/runs/b", "b"),
        ("/a/flowmo_lo.pth", "flowmo_lo.pth"),
        ("model.safetensors", "model.safetensors"),
    ],
)
def test_short_names(name: str, short: str) -> None:
    assert short_name(name) == short
