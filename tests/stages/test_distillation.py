"""The loss of few-step decoding (O11), written out: whom samples are compared with, and what is not computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from flowmo.flow import ThickTailedLogitNormal, shifted_grid
from flowmo.presets import tiny
from flowmo.stages import (
    DistillationConfig,
    DistillationLoss,
    DistillConfig,
    PerceptualDistance,
    SampleDistanceConfig,
    draw,
    draw_chain,
)
from flowmo.stages import distillation_loss as loss_of
from flowmo.stages.mode_matching import Draws
from flowmo.stages.mode_seeking import ChainDraws
from flowmo.tokenizer import FlowMo


@pytest.fixture
def images(samples: Callable[[int], Tensor]) -> Tensor:
    return samples(32)[:4]


@pytest.fixture
def teacher(lively: Callable[[nn.Module], nn.Module]) -> FlowMo:
    torch.manual_seed(0)
    model = FlowMo(tiny())
    model.config = replace(
        model.config, sampler=replace(model.config.sampler, num_steps=5, rho=2.0, guidance_scale=1.5)
    )
    return lively(model).requires_grad_(False)  # type: ignore[return-value]


@pytest.fixture
def student(teacher: FlowMo) -> FlowMo:
    """The teacher's encoder, another decoder."""
    model = FlowMo(tiny())
    model.load_state_dict(teacher.state_dict())
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    model.encoder.requires_grad_(False)
    return model.train()


def distillation_loss(
    student: FlowMo,
    image: Tensor,
    chain: ChainDraws,
    perceptual: PerceptualDistance | None,
    pixel_weight: float,
    sample_weight: float,
    teacher: FlowMo | None = None,
    recompute: bool = True,
    draws: Draws | None = None,
    flow_weight: float = 0.0,
) -> DistillationLoss:
    config = DistillationConfig(
        sample=SampleDistanceConfig(weight=sample_weight, recompute=recompute),
        distill=DistillConfig(pixel_weight=pixel_weight, flow_weight=flow_weight),
    )
    return loss_of(student, image, chain, draws, config, perceptual, teacher)


def distance(image: Tensor, reference: Tensor) -> Tensor:
    return (image - reference).abs().mean((1, 2, 3))


def chain_of(images: Tensor, steps: int, share: float = 1.0) -> ChainDraws:
    return draw_chain(images, steps, torch.Generator().manual_seed(1), share, shifted_grid(steps, 2.0))


def sampled_by(model: FlowMo, code: Tensor, x: Tensor, levels: list[float], scale: float = 1.0) -> Tensor:
    """Euler steps by hand, with guidance within the published interval."""
    low, high = model.config.sampler.guidance_interval
    for now, then in pairwise(levels):
        t = torch.full((len(x),), now)
        v = model.velocity(x, code, t)
        if scale != 1 and low <= now <= high:
            null = model.velocity(x, None, t)
            v = null + scale * (v - null)
        x = x + (then - now) * v
    return x


@pytest.mark.parametrize("steps", [1, 2])
def test_compared_with_the_teacher(steps: int, student: FlowMo, teacher: FlowMo, images: Tensor) -> None:
    """The student's unguided steps, the teacher's guided ones, from the same noise and code; its pictures are clipped,
    the student's are not."""
    chain = chain_of(images, steps)
    loss = distillation_loss(student, images, chain, distance, 0.7, 0.3, teacher)
    code = student.quantize(student.encode(images)).code
    ours = sampled_by(student, code, chain.noise, [(k / steps) ** 2 for k in range(steps, -1, -1)])
    theirs = sampled_by(teacher, code, chain.noise, [(k / 5) ** 2 for k in range(5, -1, -1)], 1.5)
    assert not torch.allclose(
        theirs, sampled_by(teacher, code, chain.noise, [(k / 5) ** 2 for k in range(5, -1, -1)]), atol=1e-3
    )
    assert theirs.abs().max() > 1
    pixel = (ours - theirs.clamp(-1, 1)).square().mean()
    sample = (ours - theirs.clamp(-1, 1)).abs().mean()
    assert torch.allclose(loss.pixel, pixel, rtol=1e-4)
    assert torch.allclose(loss.sample, sample, rtol=1e-4)
    assert torch.allclose(loss.total, 0.7 * pixel + 0.3 * sample, rtol=1e-4)
    assert loss.flow is None


def test_compared_with_the_pictures(student: FlowMo, images: Tensor) -> None:
    chain = chain_of(images, 2, share=0.5)
    loss = distillation_loss(student, images, chain, distance, 1.0, 2.0)
    code = student.quantize(student.encode(images)).code[:2]
    ours = sampled_by(student, code, chain.noise, [1, 0.25, 0])
    assert torch.allclose(loss.pixel, (ours - images[:2]).square().mean(), rtol=1e-4)
    assert torch.allclose(loss.total, loss.pixel + 2 * (ours - images[:2]).abs().mean(), rtol=1e-4)


def test_the_flow_term_is_that_of_stage_1a(student: FlowMo, images: Tensor) -> None:
    chain = chain_of(images, 1)
    draws = draw(images, ThickTailedLogitNormal(), 0.5, torch.Generator().manual_seed(3))
    loss = distillation_loss(student, images, chain, None, 1.0, 1.0, draws=draws, flow_weight=0.1)
    t = draws.t[:, None, None, None]
    code = student.quantize(student.encode(images)).code
    velocity = student.velocity((1 - t) * images + t * draws.noise, draws.condition(code), draws.t)
    assert loss.flow is not None
    assert torch.allclose(loss.flow, (velocity - (draws.noise - images)).square().mean(), rtol=1e-5)
    assert torch.allclose(loss.total, loss.pixel + 0.1 * loss.flow)
    assert loss.sample == 0


def test_gradients_reach_the_students_decoder_alone(student: FlowMo, teacher: FlowMo, images: Tensor) -> None:
    distillation_loss(student, images, chain_of(images, 2), distance, 1.0, 1.0, teacher).total.backward()
    assert all(p.grad is None for p in [*student.encoder.parameters(), *teacher.parameters()])
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.decoder.parameters())


def test_passes_of_the_decoder(
    student: FlowMo, teacher: FlowMo, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass of the student for one step; without weight neither d_perc nor the flow term costs any."""
    asked = {"student": 0, "teacher": 0}
    for name, model in (("student", student), ("teacher", teacher)):
        model.decoder.image_in.register_forward_hook(lambda *_, name=name: asked.update({name: asked[name] + 1}))

    def never(image: Tensor, reference: Tensor) -> Tensor:
        raise AssertionError("a weight of 0 asks nothing")

    draws = draw(images, ThickTailedLogitNormal(), 0.0, torch.Generator())
    distillation_loss(student, images, chain_of(images, 1), never, 1.0, 0.0, recompute=False, draws=draws)
    assert asked == {"student": 1, "teacher": 0}
    distillation_loss(student, images, chain_of(images, 1), distance, 1.0, 1.0, teacher, recompute=False)
    assert asked["student"] == 2
    assert asked["teacher"] > 0
