"""The solvers of teacher and student (O11, O15), and of what decoders are timed with."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from flowmo.config import SamplerConfig
from flowmo.experiments.decoding import decoding_of
from flowmo.presets import tiny
from flowmo.stages import DistillConfig
from flowmo.tokenizer import FlowMo
from flowmo.training import DistillTrainConfig
from flowmo.training.distillation import student_of, teacher_of

HEUN = replace(tiny(), sampler=SamplerConfig(3, 1.0, 1.0, solver="heun"))


def test_a_student_samples_by_the_steps_that_it_is_trained_by() -> None:
    """Its chains are Euler's, whatever solver is stored with the weights that it starts from."""
    config = DistillTrainConfig(distill=DistillConfig(steps=(2,), teacher_steps=3))
    assert student_of(FlowMo(HEUN), config).config.sampler.solver == "euler"
    assert teacher_of(FlowMo(HEUN), config).config.sampler.solver == "heun"
    other = replace(config, distill=replace(config.distill, teacher_solver="euler"))
    assert teacher_of(FlowMo(HEUN), other).config.sampler.solver == "euler"


def test_a_timed_decoder_takes_its_samplers_solver() -> None:
    model = FlowMo(tiny()).eval()
    nn.init.normal_(model.decoder.readout.weight, std=0.1)
    tokens = model.tokenize(torch.zeros(1, 3, 32, 32))
    euler, heun = (replace(HEUN.sampler, solver=solver) for solver in ("euler", "heun"))
    found = decoding_of(model, tokens, heun)()
    assert torch.equal(found, model.detokenize(tokens, num_steps=3, rho=1.0, guidance_scale=1.0, solver="heun").cpu())
    assert not torch.equal(found, decoding_of(model, tokens, euler)())
