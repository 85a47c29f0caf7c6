"""The networks that measure a decoder in training: left out with a note where none is installed, never a named file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flowmo.errors import WeightsError
from flowmo.evaluation import validation
from flowmo.evaluation.validation import load_sampler_validation
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo


class Distance(torch.nn.Module):
    """A distance of its own, so that no weights are needed."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean((1, 2, 3))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_networks_that_are_not_installed_are_left_out_with_a_note(
    images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*args: Any) -> Any:
        raise WeightsError("no weights here")

    monkeypatch.setattr(validation, "load_lpips", missing)
    monkeypatch.setattr(validation, "load_inception", missing)
    said: list[str] = []
    measure = load_sampler_validation(images, tmp_path, Distance(), say=said.append)
    assert said == [f"note: validation leaves {what} out: no weights here" for what in ("LPIPS", "rFID")]
    numbers = measure(FlowMo(tiny()).eval(), 8)
    assert set(numbers) == {"psnr", "psnr_one_step", "distance"}
    assert (tmp_path / "0000000008.png").exists()
    load_sampler_validation(images, tmp_path, Distance(), rfid=False, say=said.append)
    assert len(said) == 3  # LPIPS alone


@pytest.mark.parametrize("network", ["lpips", "inception"])
def test_a_named_file_that_cannot_be_used_is_an_error(network: str, images: Tensor, tmp_path: Path) -> None:
    files = {network: tmp_path / "none.safetensors"}
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        load_sampler_validation(images, tmp_path, Distance(), **files)  # type: ignore[arg-type]
