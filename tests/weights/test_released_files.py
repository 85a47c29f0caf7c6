"""Reading released checkpoints: what is wrong is said, nothing in a file runs, and memory stays small."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

import warm_python
from flowmo.config import FlowMoConfig
from flowmo.errors import WeightsError
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.weights import load, load_official, official_layout
from flowmo.weights.describe import describe_official
from flowmo.weights.official import config_from_shapes

REPOSITORY = Path(__file__).parents[2]


def released_state(config: FlowMoConfig, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(slot.shape, generator=generator) for k, slot in official_layout(config).items()}


def write(path: Path, ema: dict[str, Tensor], raw: dict[str, Tensor] | None = None) -> Path:
    torch.save({"total_steps": 1, "model_state_dict": raw or ema, "model_ema_state_dict": ema}, path)
    return path


@pytest.fixture
def state() -> dict[str, Tensor]:
    return released_state(tiny())


def read(path: Path, **options: object) -> FlowMo:
    return load_official(path, num_tokens=16, image_size=32, **options)  # type: ignore[arg-type]


def test_both_sets_of_weights_can_be_chosen(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = write(tmp_path / "a.pth", state, released_state(tiny(), seed=1))
    model, raw = read(path), read(path, ema=False)
    assert torch.equal(model.encoder.image_in.weight, state["encoder.img_in.weight"])
    assert torch.equal(raw.encoder.image_in.weight, released_state(tiny(), seed=1)["encoder.img_in.weight"])
    assert not model.training
    assert model.config == tiny()


def test_a_bare_state_dict_and_wrapped_names_are_read(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({f"module._orig_mod.{key}": value for key, value in state.items()}, tmp_path / "bare.pth")
    model = read(tmp_path / "bare.pth")
    assert torch.equal(model.decoder.readout.bias, state["decoder.final_layer_img.linear.bias"])


def test_the_format_before_zip_files_is_read(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({"model_ema_state_dict": state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    model = read(tmp_path / "old.pth")
    assert torch.equal(model.decoder.readout.bias, state["decoder.final_layer_img.linear.bias"])


def test_what_a_file_holds_besides_the_model(tmp_path: Path, state: dict[str, Tensor]) -> None:
    content = {"config": {"lr": 1}, "model_state_dict": state, "model_ema_state_dict": state, "total_steps": 7}
    torch.save(content, tmp_path / "a.pth")
    facts = describe_official(tmp_path / "a.pth")
    assert facts["weights"] == ["model_state_dict", "model_ema_state_dict"]
    assert (facts["keys"], facts["total_steps"]) == (len(state), 7)
    assert facts["keys_used"] + len(facts["keys_unused"]) == len(state)


def test_load_takes_a_released_file_too(tmp_path: Path, state: dict[str, Tensor]) -> None:
    model = load(write(tmp_path / "a.pth", state), num_tokens=16, image_size=32)
    assert model.tokenize(torch.zeros(1, 3, 32, 32)).indices.shape == (1, 16, 2)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("decoder.img_in.bias", None, "missing decoder.img_in.bias"),
        ("decoder.double_blocks.1.img_attn.lora", torch.zeros(3), "unknown decoder.double_blocks.1.img_attn.lora"),
        (
            "encoder.double_blocks.0.img_mlp.0.bias",
            torch.zeros(5),
            r"img_mlp.0.bias has shape \(5,\), expected \(256,\)",
        ),
        ("encoder.final_layer_txt.linear.weight", None, "not a released FlowMo state dict.*no key"),
        ("encoder.img_in.weight", torch.zeros(3), "not a released FlowMo state dict.*other dimensions"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_explained(
    key: str, value: Tensor | None, said: str, tmp_path: Path, state: dict[str, Tensor]
) -> None:
    if value is None:
        del state[key]
    else:
        state[key] = value
    with pytest.raises(WeightsError, match=said):
        read(write(tmp_path / "a.pth", state))


def test_many_problems_are_counted_not_listed(tmp_path: Path, state: dict[str, Tensor]) -> None:
    for i in range(20):
        state[f"extra.{i}"] = torch.zeros(1)
    with pytest.raises(WeightsError, match="and 15 more"):
        read(write(tmp_path / "a.pth", state))


def test_sizes_of_images_and_tokens_come_from_the_caller() -> None:
    shapes = {key: slot.shape for key, slot in official_layout(tiny()).items()}
    config = config_from_shapes(shapes, num_tokens=64, image_size=128)
    assert (config.num_tokens, config.image_size, config.encoder) == (64, 128, tiny().encoder)


def test_unusual_bit_counts_must_be_explained() -> None:
    config = FlowMoConfig(tiny().encoder, tiny().decoder, 32, 16, bits_per_token=20, bits_per_group=10)
    shapes = {key: slot.shape for key, slot in official_layout(config).items()}
    with pytest.raises(WeightsError, match=r"20 bits.*bits_per_group"):
        config_from_shapes(shapes, 16, 32)
    assert config_from_shapes(shapes, 16, 32, bits_per_group=10) == config


class Malicious:
    """Creates a file when unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_file_is_executed(tmp_path: Path, state: dict[str, Tensor]) -> None:
    mark, path = tmp_path / "executed", tmp_path / "evil.pth"
    torch.save({"model_ema_state_dict": state, "optimizer": Malicious(mark)}, path)
    with pytest.raises(WeightsError, match="not opened for safety"):
        read(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the file is indeed dangerous
    assert mark.exists()


def test_files_that_are_no_checkpoints(tmp_path: Path, state: dict[str, Tensor]) -> None:
    whole = write(tmp_path / "whole.pth", state).read_bytes()
    for name, content in {"half": whole[: len(whole) // 2], "empty": b"", "text": b"<html>not found</html>"}.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="damaged"):
            read(path)
    with pytest.raises(WeightsError, match="no weights at"):
        read(tmp_path / "absent.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="no dictionary"):
        read(tmp_path / "list.pth")
    torch.save({"model_state_dict": state, "total_steps": 3}, tmp_path / "raw_only.pth")
    with pytest.raises(WeightsError, match="no 'model_ema_state_dict'; it holds: model_state_dict"):
        read(tmp_path / "raw_only.pth")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_no_second_copy_of_the_model_in_memory(tmp_path: Path) -> None:
    """The same script measures the full FlowMo-Lo; here a fifth of a gigabyte of weights."""
    settings = ["--preset", "flowmo-fewer-params", "--model", "encoder.depth=1", "decoder.depth=2"]
    done = subprocess.run(
        [warm_python.python(), REPOSITORY / "tools" / "show_memory.py", tmp_path, *settings],
        capture_output=True,
        text=True,
        env=warm_python.environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert 0.95 < found["ratio"] < 1.3
    assert found["file_bytes"] > 2 * found["model_bytes"] > 3e8
    assert not list(tmp_path.iterdir())
