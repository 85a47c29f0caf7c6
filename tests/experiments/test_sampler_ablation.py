"""The bench of the sampler: every path samples the same pictures, and the plain one is plain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from flowmo.config import SamplerConfig
from flowmo.experiments import sampler_ablation as ablation
from flowmo.flow import seeded_noise
from flowmo.presets import tiny
from flowmo.profiling.flops import flops_per_image
from flowmo.tokenizer import FlowMo
from plain_sampler import plain_sample

SAMPLER = SamplerConfig(5, 1.0, 1.5, (0.1, 0.7))


@pytest.fixture(params=["velocity", "clean"])
def model(request: pytest.FixtureRequest, lively: Callable[[nn.Module], nn.Module]) -> FlowMo:
    return lively(FlowMo(replace(tiny(), prediction=request.param))).eval()  # type: ignore[return-value]


def test_each_part_alone_samples_what_the_plain_path_samples(model: FlowMo, samples: Callable[[int], Tensor]) -> None:
    expected, done = [], []
    callbacks = (expected.append, lambda: done.append(1))
    rows = ablation.measure_sampler_ablation(model, samples(32)[:2], SAMPLER, "fp32", 1, *callbacks)
    found = {one.name: one for one in rows}
    assert len(found) == 5
    assert expected == [len(done)] == [2 * len(found)]  # what a bar on a terminal shows
    assert all(one.difference < 1e-4 for name, one in found.items() if "bf16" not in name)
    assert 1e-4 < found["all, weights in bf16"].difference < 0.2
    assert found["plain"].ratio == 1
    for one in found.values():
        assert one.images_per_second == pytest.approx(2 / one.seconds)
        assert one.seconds_per_pass == pytest.approx(one.seconds / 8)  # five steps, three of them guided


def test_each_part_saves_what_it_says(model: FlowMo, samples: Callable[[int], Tensor]) -> None:
    code, noise = torch.ones(2, 16, model.config.latent_dim), seeded_noise(0, 2, (3, 32, 32))
    calls = {"image_in": 0, "time_embedding": 0}
    for name in calls:
        getattr(model.decoder, name).register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    counts = {}
    with torch.no_grad():
        expected = plain_sample(model, code, noise, SAMPLER)
        for sample in (
            ablation.plain_sample,
            ablation.one_pass_sample,
            ablation.levels_once_sample,
        ):
            calls.update(image_in=0, time_embedding=0)
            torch.testing.assert_close(sample(model, code, noise, SAMPLER), expected, atol=1e-4, rtol=1e-4)
            counts[sample.__name__] = (calls["image_in"], calls["time_embedding"])
    assert counts == {"plain_sample": (8, 8), "one_pass_sample": (5, 5), "levels_once_sample": (8, 1)}


def test_utilisation_is_of_square_images(model: FlowMo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations of the passes at the measured speed, as a share of what the device reaches in that precision."""
    ceilings = {torch.float32: 1e9, torch.bfloat16: 4e9}
    monkeypatch.setattr(ablation, "matrix_ceiling", lambda device, dtype: ceilings[dtype])
    found = [ablation.Ablation(name, 1.0, 0.125, 2.0, 1.0, 0.0) for name in ("plain", "all, weights in bf16")]
    plain, half = ablation.with_utilisation(found, model, (32, 32), SAMPLER)
    a_pass = flops_per_image(model.config, None).decoder
    assert plain["utilisation"] == pytest.approx(8 * a_pass * 2.0 / 1e9)
    assert half["utilisation"] == pytest.approx(plain["utilisation"] / 4)
    assert plain["name"] == "plain"
    assert not any("utilisation" in row for row in ablation.with_utilisation(found, model, (32, 64), SAMPLER))
