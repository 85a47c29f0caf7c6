"""Our own weight files: exact round trips, and a clear word about every file that is not one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flowmo.config import FlowMoConfig, SamplerConfig, to_json
from flowmo.errors import WeightsError
from flowmo.presets import flowmo_mini_64, tiny
from flowmo.tokenizer import FlowMo
from flowmo.weights import load, load_model, read_about, save_model, store_sampler


@pytest.fixture
def model() -> FlowMo:
    return FlowMo(tiny()).eval()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("preset", [tiny, flowmo_mini_64])
def test_round_trip(dtype: torch.dtype, preset: object, tmp_path: Path) -> None:
    model = FlowMo(preset())  # type: ignore[operator]
    save_model(model, tmp_path / "m.safetensors", dtype, about={"images": 12})
    again = load_model(tmp_path / "m.safetensors")
    assert again.config == model.config
    assert not again.training
    assert read_about(tmp_path / "m.safetensors") == {"images": 12}
    for name, parameter in model.named_parameters():
        found = again.get_parameter(name)
        assert found.dtype == torch.float32
        assert torch.equal(found, parameter.to(dtype).float()), name
    images = torch.rand(1, 3, model.config.image_size, model.config.image_size) * 2 - 1
    assert again.reconstruct(images, num_steps=1).shape == images.shape
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.safetensors"]


def test_paths_may_be_texts(model: FlowMo, tmp_path: Path) -> None:
    """As they come from a notebook."""
    name, other = str(tmp_path / "m.safetensors"), str(tmp_path / "other.safetensors")
    save_model(model, name, about={"images": 12})
    store_sampler(name, other, SamplerConfig(num_steps=3))
    assert load_model(other).fingerprint() == load_model(name).fingerprint()
    assert read_about(other) == {"images": 12}


def test_the_sampler_can_be_replaced_when_loading(model: FlowMo, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m.safetensors")
    sampler = SamplerConfig(num_steps=3, rho=1.0)
    assert load_model(tmp_path / "m.safetensors", sampler).config == replace(tiny(), sampler=sampler)


def test_load_takes_a_file_or_its_folder(model: FlowMo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(model, str(tmp_path / "model.safetensors"), torch.float32)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert torch.equal(load("~/model.safetensors").encoder.readout.weight, model.encoder.readout.weight)
    for place in (tmp_path, tmp_path / "model.safetensors", str(tmp_path)):
        assert torch.equal(load(place).encoder.readout.weight, model.encoder.readout.weight)


def test_weights_that_half_precision_cannot_hold_are_not_saved(model: FlowMo, tmp_path: Path) -> None:
    with torch.no_grad():
        model.decoder.readout.bias[0] = 1e6
    with pytest.raises(WeightsError, match=r"decoder\.readout\.bias is not finite in torch\.float16"):
        save_model(model, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())
    save_model(model, tmp_path / "m.safetensors", torch.float32)


def test_a_failed_save_keeps_the_old_file(model: FlowMo, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(model, path)
    before = path.read_bytes()
    with torch.no_grad():
        model.decoder.readout.bias[0] = torch.nan
    with pytest.raises(WeightsError):
        save_model(model, path)
    assert path.read_bytes() == before


def test_damaged_files(model: FlowMo, tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_model(model, whole)
    content = whole.read_bytes()
    damaged = {"half": content[: len(content) // 2], "empty": b"", "text": b"hello", "header": b"\xff" * 16 + content}
    for name, data in damaged.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        for reader in (load_model, read_about, load):
            with pytest.raises(WeightsError, match="damaged"):
                reader(path)


def test_foreign_and_contradictory_files(model: FlowMo, tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_model(model, whole)
    tensors, ours = load_file(whole), {"format": "flowmo-weights-1", "config": to_json(model.config)}

    def refused(metadata: dict[str, str] | None, said: str) -> None:
        save_file(tensors, tmp_path / "foreign.safetensors", metadata=metadata)
        with pytest.raises(WeightsError, match=said):
            load_model(tmp_path / "foreign.safetensors")

    refused(None, "not one of FlowMo's")
    refused({"format": "pt"}, "not one of FlowMo's")
    refused({"format": "flowmo-weights-1"}, "configuration in its header cannot be read")
    save_file(tensors, tmp_path / "foreign.safetensors", metadata=ours | {"about": "{"})
    with pytest.raises(WeightsError, match="about the training cannot be read"):
        read_about(tmp_path / "foreign.safetensors")
    refused(ours | {"config": "{"}, "configuration in its header cannot be read")
    refused(ours | {"config": ours["config"].replace('"depth": 2', '"depth": 3')}, "do not fit its own configuration")
    del tensors["decoder.readout.bias"]
    refused(ours, r"do not fit.*decoder\.readout\.bias")


def test_missing_weights_say_where_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights at"):
        load(tmp_path / "absent.safetensors")
    with pytest.raises(WeightsError, match=r"flowmo-mini-hi.*without weights.*'flowmo-lo'.*flowmo train"):
        load("flowmo-mini-hi")
    with pytest.raises(WeightsError, match=r"flowmo\[hub\]|hf download ksarge/FlowMo flowmo_lo\.pth"):
        load("flowmo-lo")
    with pytest.raises(WeightsError, match=r"no model 'flowmo-low': neither a file, a folder, nor a packaged model"):
        load("flowmo-low")
    with pytest.raises(WeightsError, match=r"no weights at .*; give a file of weights, or a folder that has one"):
        load(tmp_path)  # a folder without model.safetensors


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    with pytest.raises(WeightsError, match=r"damaged or no safetensors file: .*; give one of weights"):
        load(tmp_path / "picture.png")


def test_every_setting_survives_the_header(tmp_path: Path) -> None:
    config: FlowMoConfig = replace(flowmo_mini_64(), sampler=SamplerConfig(1, float("inf"), 1.0, (0.0, 1.0)))
    save_model(FlowMo(config), tmp_path / "m.safetensors")
    assert load_model(tmp_path / "m.safetensors").config == config
