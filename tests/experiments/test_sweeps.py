"""What the paper's figures show, measured: variance over seeds, the norm of x_1, the grid of samplers, mean colours."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowmo.config import SamplerConfig
from flowmo.data import to_uint8
from flowmo.errors import ConfigError, ImageError
from flowmo.evaluation.evaluator import Evaluator
from flowmo.evaluation.result_store import ResultStore
from flowmo.experiments.discoloration import color_error, discoloration
from flowmo.experiments.rate_distortion_perception import norm_sweep
from flowmo.experiments.sampler_grid import (
    GridRow,
    best,
    candidates,
    frontier,
    guidances,
    sampler_grid,
)
from flowmo.experiments.sampling import codes_of, sample_codes
from flowmo.experiments.variance import seed_variance
from flowmo.flow import Solver, evaluations, function_evaluations
from flowmo.metrics.networks import Networks
from flowmo.metrics.pixels import psnr
from flowmo.perceptual import load_lpips
from flowmo.tokenizer import FlowMo
from flowmo.weights import load_model

SIZE = (32, 32)


@pytest.fixture(scope="module")
def model(learned: Path) -> FlowMo:
    return load_model(learned)


@pytest.fixture(scope="module")
def pictures(samples: Callable[[int], Tensor]) -> Tensor:
    return samples(32)[:3]


def test_equal_seeds_have_no_variance(model: FlowMo, pictures: Tensor) -> None:
    for one in seed_variance(model, pictures, [5, 5, 5]):
        assert one.variance.shape == SIZE
        assert one.variance.max() == 0
        assert one.deviation == one.share == 0


def test_other_seeds_have_variance_where_the_code_leaves_room(model: FlowMo, pictures: Tensor) -> None:
    found = list(seed_variance(model, pictures, range(4)))
    for one, picture in zip(found, pictures, strict=True):
        assert one.samples.shape == (4, 3, *SIZE)
        assert (one.variance >= 0).all()
        assert one.variance.mean() > 0
        torch.testing.assert_close(one.variance, one.samples.var(0).mean(0), atol=1e-5, rtol=1e-4)
        chance = one.variance.mean() * 3 / 4
        torch.testing.assert_close(chance + one.bias.mean(), (one.samples - picture).square().mean())
        assert one.share == pytest.approx(float(chance / (chance + one.bias.mean())), rel=1e-4)
    assert len({one.deviation for one in found}) == 3


def test_the_samples_are_what_the_model_samples(model: FlowMo, pictures: Tensor) -> None:
    (one,) = seed_variance(model, pictures[:1], [3, 9])
    expected = model.reconstruct(pictures[:1].expand(2, -1, -1, -1), seed=[3, 9])
    assert torch.equal(one.samples, expected)


def test_a_variance_needs_two_seeds(model: FlowMo, pictures: Tensor) -> None:
    with pytest.raises(ConfigError, match="at least 2 seeds"):
        next(seed_variance(model, pictures, [1]))
    with pytest.raises(ImageError, match="no pictures"):
        codes_of(model, pictures[:0])


def test_a_norm_of_one_is_ordinary_sampling(model: FlowMo, pictures: Tensor) -> None:
    codes = codes_of(model, pictures)
    assert torch.equal(sample_codes(model, codes, SIZE, [4, 5, 6]), model.reconstruct(pictures, seed=[4, 5, 6]))
    sampler = SamplerConfig(3, 2.0, 1.5, (0.2, 0.8))
    expected = model.reconstruct(
        pictures, num_steps=3, rho=2.0, guidance_scale=1.5, guidance_interval=(0.2, 0.8), seed=[4, 5, 6]
    )
    assert torch.equal(sample_codes(model, codes, SIZE, [4, 5, 6], sampler), expected)


def test_without_noise_the_seed_does_not_matter_and_the_picture_is_near_the_mean(
    model: FlowMo, pictures: Tensor
) -> None:
    codes = codes_of(model, pictures)
    none = sample_codes(model, codes, SIZE, [0, 1, 2], noise_scale=0)
    assert torch.equal(none, sample_codes(model, codes, SIZE, [7, 8, 9], noise_scale=0))
    noisy = torch.stack([sample_codes(model, codes, SIZE, [s] * 3) for s in range(6)])
    to_mean = (none - noisy.mean(0)).square().mean()
    between = (noisy[0] - noisy[1]).square().mean()
    assert to_mean < between


def test_norm_sweep(model: FlowMo, pictures: Tensor) -> None:
    def brightness(images: Tensor) -> dict[str, float]:
        return {"brightness": float(images.mean())}

    several = copy.deepcopy(model)  # a decoder of one step makes little of its noise
    several.config = replace(model.config, sampler=SamplerConfig(2, 1.0, 1.25, (0.1, 0.9)))
    points = list(norm_sweep(several, pictures, [0.0, 1.0], range(3), brightness))
    assert [point.noise_scale for point in points] == [0.0, 1.0]
    ordinary = to_uint8(several.reconstruct(pictures, seed=[0, 1, 2])).float() / 127.5 - 1
    assert points[1].psnr == float(psnr(ordinary, pictures).mean())
    assert points[1].perception == brightness(ordinary)
    assert points[0].mse < points[1].mse  # likelier noise, less distortion
    assert points[0].psnr > points[1].psnr


def test_heun_asks_twice_a_step_but_the_last() -> None:
    two = SamplerConfig(2, 1.0, 1.5, (0.4, 0.6), "heun")
    assert evaluations(two) == ((1.0, 1.0), (0.5, 1.5), (0.5, 1.5))
    assert evaluations(SamplerConfig(1, 4.0, 1.0, solver="heun")) == evaluations(SamplerConfig(1, 1.0, 1.0))
    both = candidates([1, 2], [1.0], [(1.0, (0.1, 0.5))], ("euler", "heun"))
    assert [(s.solver, s.num_steps, function_evaluations(s)) for s in both] == [
        ("euler", 1, 1), ("euler", 2, 2), ("heun", 1, 1), ("heun", 2, 3),
    ]  # fmt: skip


def test_the_frontier_of_quality_against_evaluations() -> None:
    rows = [
        GridRow(SamplerConfig(n), n, p, {"lpips": x})
        for n, p, x in [(4, 20, 0.3), (1, 18, 0.5), (2, 17, 0.5), (3, 19, 0.3)]
    ]
    assert [row.nfe for row in frontier(rows, "lpips")] == [1, 3]
    assert [row.nfe for row in frontier(rows, "psnr")] == [1, 3, 4]


def test_samplers_of_equal_effect() -> None:
    assert (
        evaluations(SamplerConfig(1, 1.0, 1.0)) == evaluations(SamplerConfig(1, 4.0, 1.5, (0.1, 0.9))) == ((1.0, 1.0),)
    )
    assert evaluations(SamplerConfig(2, float("inf"), 1.0)) == evaluations(SamplerConfig(1, 1.0, 1.0))
    assert evaluations(SamplerConfig(2, 1.0, 1.5, (0.4, 0.6))) == ((1.0, 1.0), (0.5, 1.5))
    assert evaluations(SamplerConfig(2, 2.0, 1.5, (0.4, 0.6))) == ((1.0, 1.0), (0.25, 1.0))
    assert guidances([1.0, 2.0], [(0.1, 0.5), (0.1, 0.9)]) == [(1.0, (0.1, 0.5)), (2.0, (0.1, 0.5)), (2.0, (0.1, 0.9))]
    assert len(candidates([1, 2], [1.0, 4.0], guidances([1.0, 2.0], [(0.1, 0.5)]))) == 8
    with pytest.raises(ConfigError, match="guidance_interval"):
        candidates([1], [1.0], [(1.5, (0.9, 0.1))])


def test_the_best_of_the_grid(model: FlowMo, pictures: Tensor) -> None:
    lpips = load_lpips("alex")
    sampled: list[Tensor] = []

    def keep(images: Tensor) -> dict[str, float]:
        sampled.append(images)
        return {}

    samplers = candidates([1, 2], [1.0, 4.0], guidances([1.0, 2.0], [(0.1, 0.9)]))
    evaluator = Evaluator(to_uint8(pictures), Networks(("lpips_alex",), {"alex": lpips}), batch_size=2)
    measures = [keep, lambda images: {"lpips": evaluator.numbers(images)["lpips_alex"]}]
    rows = list(sampler_grid(model, pictures, samplers, [0, 1, 2], measures, batch_size=2))
    assert [row.sampler for row in rows] == samplers
    assert (
        len(sampled) == len({evaluations(s) for s in samplers}) == 4
    )  # one step is one step, whatever rho and guidance
    chosen = best(rows)
    assert chosen.measures["lpips"] == min(row.measures["lpips"] for row in rows)
    s = chosen.sampler
    settings = {"num_steps": s.num_steps, "rho": s.rho, "guidance_scale": s.guidance_scale}
    again = to_uint8(model.reconstruct(pictures, seed=[0, 1, 2], **settings)).float() / 127.5 - 1
    assert chosen.measures["lpips"] == pytest.approx(float(lpips(again, pictures).detach().mean()), rel=1e-4)
    assert chosen.psnr == pytest.approx(float(psnr(again, pictures).mean()), rel=1e-4)
    assert best(rows, "psnr").psnr == max(row.psnr for row in rows)
    with pytest.raises(ConfigError, match="rfid"):
        best(rows, "rfid")


def test_the_rule_of_half_a_decibel_and_ties() -> None:
    def row(steps: int, passes: int, psnr: float, lpips: float) -> GridRow:
        return GridRow(SamplerConfig(steps), passes, psnr, {"lpips": lpips})

    rows = [row(8, 8, 19.0, 0.2), row(4, 4, 19.6, 0.3), row(2, 3, 20.0, 0.3), row(1, 1, 20.0, 0.4)]
    assert best(rows) is rows[0]
    assert best(rows, within=0.5) is rows[2]  # of the two at 0.3 the one of fewer passes
    assert best(rows, within=0) is rows[2]
    assert best(rows, "psnr") is rows[3]


def test_what_was_measured_is_not_measured_again(model: FlowMo, pictures: Tensor, tmp_path: Path) -> None:
    def refuse(images: Tensor) -> dict[str, float]:
        raise AssertionError("sampled again")

    def mean(images: Tensor) -> dict[str, float]:
        return {"mean": float(images.mean())}

    path = tmp_path / "rows"
    samplers = candidates([1, 2], [1.0, float("inf")], [(1.0, (0.1, 0.9))])
    seeds = [0, 1, 2]
    rows = list(sampler_grid(model, pictures, samplers, seeds, [mean], ResultStore(path), "these"))
    assert [row.seconds > 0 for row in rows] == [True, False, True, False]
    assert list(sampler_grid(model, pictures, samplers, seeds, [refuse], ResultStore(path), "these")) == rows
    with pytest.raises(AssertionError, match="sampled again"):
        next(sampler_grid(model, pictures, samplers, seeds, [refuse], ResultStore(path), "others"))


def test_mean_colours_of_constructed_casts(pictures: Tensor) -> None:
    cast = torch.tensor([10.0, -5.0, 0.0]) / 127.5
    error = color_error(pictures + cast[:, None, None], pictures)
    assert error.per_image == pytest.approx([5.0] * 3, abs=1e-4)
    assert error.cast == pytest.approx((10, -5, 0), abs=1e-4)
    opposite = torch.cat([pictures[:1] + cast[:, None, None], pictures[1:2] - cast[:, None, None], pictures[2:]])
    error = color_error(opposite, pictures)
    assert error.cast == pytest.approx((0, 0, 0), abs=1e-4)  # signs cancel, errors do not
    assert error.mean == pytest.approx(10 / 3, abs=1e-4)
    assert (error.quantile(0.5), error.quantile(1)) == pytest.approx((5, 5), abs=1e-4)
    assert color_error(pictures.flip(3), pictures).mean == pytest.approx(0, abs=1e-4)  # shapes do not matter


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_discoloration_follows_the_sampler(model: FlowMo, pictures: Tensor, solver: Solver) -> None:
    sampler = SamplerConfig(3, 2.0, 1.5, (0.1, 0.9), solver)
    found = discoloration(model, pictures, [1, 2, 3], sampler, batch_size=2)
    codes = codes_of(model, pictures, batch_size=2)
    sampled = sample_codes(model, codes, SIZE, [1, 2, 3], sampler, batch_size=2)
    assert (found.images - sampled).abs().max() < 1e-4  # the sampler takes its steps in other operations
    assert found.levels == pytest.approx([1, 4 / 9, 1 / 9])
    assert len(found.along_steps) == 3
    assert found.along_steps[-1].per_image == pytest.approx(found.error.per_image, abs=1e-3)
    one_step = model.reconstruct(pictures, num_steps=1, guidance_scale=1.0, seed=[1, 2, 3])
    assert found.along_steps[0].per_image == pytest.approx(color_error(one_step, pictures).per_image, abs=1e-3)


def test_a_wrong_first_velocity_is_seen(model: FlowMo, pictures: Tensor) -> None:
    """A decoder with a constant error in red, as networks never trained at t = 1 make one: red pictures."""
    wrong = copy.deepcopy(model)
    with torch.no_grad():
        wrong.decoder.readout.bias[0::3] += 0.2  # of the clean picture, 25 levels
    right, red = (discoloration(m, pictures, [1, 2, 3]) for m in (model, wrong))
    assert red.error.mean > right.error.mean + 3
    assert red.error.cast[0] > right.error.cast[0] + 10
    assert red.error.cast[1:] == pytest.approx(right.error.cast[1:], abs=5)
    assert red.along_steps[0].mean > right.along_steps[0].mean + 3
