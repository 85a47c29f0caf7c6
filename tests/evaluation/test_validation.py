"""Validation of a model in training, shared by several processes: the numbers of one, each image decoded once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowmo.evaluation.validation import make_sampler_validation, make_validation
from flowmo.presets import tiny
from flowmo.stages import reconstruct
from flowmo.tokenizer import FlowMo
from played_processes import Thread


def distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean((1, 2, 3))


@pytest.mark.parametrize("kind", ["sheet", "regression", "sampler"])
@pytest.mark.parametrize("size", [2, 3, 8])
def test_shares_make_the_whole(
    kind: str,
    size: int,
    photographs: Callable[[str, int], Tensor],
    lively: Callable[[nn.Module], nn.Module],
    tmp_path: Path,
) -> None:
    """Also with more processes than images: some then have none."""
    torch.manual_seed(0)
    model: FlowMo = lively(FlowMo(tiny())).eval()  # type: ignore[assignment]
    images = photographs("validation", 6)
    decoded: list[int] = []
    model.encoder.image_in.register_forward_pre_hook(lambda _, given: decoded.append(len(given[0])))

    def measure(folder: Path, **more: Any) -> dict[str, float]:
        if kind == "sampler":
            return make_sampler_validation(images, folder, distance, **more)(model, 8)
        decode = reconstruct if kind == "regression" else None
        return make_validation(images, folder, distance, decode=decode, **more)(model, 8)

    with torch.no_grad():
        expected = measure(tmp_path / "one")
        once = sum(decoded)
        decoded.clear()
    barrier, values = threading.Barrier(size), {}
    with ThreadPoolExecutor(size) as pool:
        threads = [Thread(rank, size, barrier, values) for rank in range(size)]
        found = list(pool.map(lambda t: measure(tmp_path / str(t.rank), processes=t), threads))
    assert sum(decoded) == once
    assert found[0] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert found == [found[0]] * size
    assert (tmp_path / "0" / "0000000008.png").exists()
    assert not any((tmp_path / str(rank)).exists() for rank in range(1, size))
