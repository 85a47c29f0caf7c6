"""The plan of a run that trains a decoder: what it remembers, and which checkpoints it goes on from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowmo.errors import TrainingError, WeightsError
from flowmo.presets import tiny
from flowmo.provenance import weights_checksum
from flowmo.tokenizer import FlowMo
from flowmo.training.configuration.recipes import distillation, post_training
from flowmo.training.decoder_plan import decoder_plan, in_words


class Difference(nn.Module):
    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        return (images - reference).square().flatten(1).mean(1)


NETWORK = (Difference(), {"name": "difference", "side": 224, "sha256": "0123456789"})


def checkpoint(**about: Any) -> Any:
    return SimpleNamespace(path=Path("run/checkpoint-1"), about=about)


def test_it_goes_on_from_the_same_weights_alone() -> None:
    model = FlowMo(tiny())
    plan = decoder_plan(post_training(), lambda: model, NETWORK)
    assert plan.new_model() is model
    assert plan.about["init"] == weights_checksum(model)
    assert plan.fits(checkpoint(init=weights_checksum(model)))
    assert not plan.fits(checkpoint(init=weights_checksum(FlowMo(replace(tiny(), num_tokens=4)))))
    assert in_words(plan) == {"network": "difference at 224 px (sha256 01234567)"}


def test_weights_that_are_gone_are_not_needed_any_more() -> None:
    def gone() -> FlowMo:
        raise WeightsError("no such file")

    plan = decoder_plan(post_training(), gone, NETWORK)
    assert plan.fits(checkpoint(init="ab"))
    assert plan.about["init"] == "ab"


def test_another_teacher_is_another_run() -> None:
    torch.manual_seed(1)
    teacher, student = FlowMo(tiny()), FlowMo(tiny())
    plan = decoder_plan(distillation(), lambda: student, NETWORK, teacher)
    assert plan.fits(checkpoint(teacher=plan.about["teacher"], init=weights_checksum(student)))
    assert in_words(plan)["teacher"].endswith("25 steps, rho 4, guidance 1.5")
    for other in ({}, {"teacher": plan.about["teacher"] | {"sha256": "ab"}}):
        with pytest.raises(TrainingError, match="run/checkpoint-1 is of a run with another teacher"):
            plan.fits(checkpoint(**other))
