"""Stage 1A's loss (Section 3.2, Eq. 4-9): its terms, their weights, and the randomness that it is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from flowmo.arch import Condition
from flowmo.errors import ConfigError
from flowmo.flow import ThickTailedLogitNormal
from flowmo.presets import tiny
from flowmo.stages import LossWeights, ModeMatchingLoss, draw, mode_matching_loss
from flowmo.stages.autoencode import Autoencode, AutoencodeConfig
from flowmo.stages.base import LossParts
from flowmo.stages.mode_matching import WHOLE, Draws, ModeMatching, ModeMatchingConfig, Window, draw_window, synchronize
from flowmo.tokenizer import FlowMo


@pytest.fixture
def model(lively: Callable[[nn.Module], nn.Module]) -> FlowMo:
    return lively(FlowMo(tiny())).train()  # type: ignore[return-value]


@pytest.fixture
def images(samples: Callable[[int], Tensor]) -> Tensor:
    return samples(32)


def draws_for(images: Tensor, dropout: float = 0.0, seed: int = 0) -> Draws:
    return draw(images, ThickTailedLogitNormal(), dropout, torch.Generator().manual_seed(seed))


def distance(image: Tensor, reference: Tensor) -> Tensor:
    return (image - reference).abs().mean((1, 2, 3))


def test_terms_are_named_finite_and_add_up(model: FlowMo, images: Tensor) -> None:
    weights = LossWeights(perceptual=0.3, entropy=0.2, commitment=0.05)
    loss = mode_matching_loss(model, images, draws_for(images), weights, distance)
    scalars = ("total", "flow", "perceptual", "sample_entropy", "codebook_entropy", "commitment")
    assert loss._fields == (*scalars, "bit_share")
    assert all(value.shape == () and value.isfinite() for value in loss[:-1])
    assert torch.equal(loss.bit_share, (model.quantize(model.encode(images)).code > 0).float().mean(0))
    entropy = loss.sample_entropy - loss.codebook_entropy
    total = loss.flow + 0.3 * loss.perceptual + 0.2 * entropy + 0.05 * loss.commitment
    assert torch.allclose(loss.total, total)


def test_the_published_weights() -> None:
    """A1, A11: the release's, not those that the paper's Table 6 prints."""
    assert LossWeights() == LossWeights(perceptual=0.1, entropy=0.0025, commitment=0.000625)


def test_terms_written_out(model: FlowMo, images: Tensor) -> None:
    """The flow loss is a mean over all pixels (A3); d_perc compares x_t - t v, not clamped (A5), with the image."""
    noise, t, keep, *_ = draws_for(images, dropout=0.5)
    loss = mode_matching_loss(model, images, Draws(noise, t, keep), LossWeights(), distance)
    code = model.quantize(model.encode(images)).code
    level = t[:, None, None, None]
    x_t = level * noise + (1 - level) * images
    velocity = model.velocity(x_t, Condition(code).keep_images(keep), t)
    assert torch.allclose(loss.flow, ((velocity - (noise - images)) ** 2).mean(), rtol=1e-5)
    estimate = x_t - level * velocity
    assert estimate.abs().max() > 1
    assert torch.allclose(loss.perceptual, distance(estimate, images).mean(), rtol=1e-5)


def test_without_perceptual_weight_the_network_is_not_asked(model: FlowMo, images: Tensor) -> None:
    def never(*_: Tensor) -> Tensor:
        raise AssertionError("asked")

    loss = mode_matching_loss(model, images, draws_for(images), LossWeights(perceptual=0.0), never)
    assert loss.perceptual == 0
    assert mode_matching_loss(model, images, draws_for(images), LossWeights(), None).perceptual == 0


@pytest.mark.parametrize(("share", "expected"), [(1.0, 8), (0.5, 4), (0.25, 2), (0.01, 1)])
def test_perceptual_share(share: float, expected: int, model: FlowMo, images: Tensor) -> None:
    asked: list[Tensor] = []

    def note(image: Tensor, reference: Tensor) -> Tensor:
        asked.append(reference)
        return distance(image, reference)

    mode_matching_loss(model, images, draws_for(images), LossWeights(), note, share)
    assert torch.equal(asked[0], images[:expected])


def test_the_encoder_learns_through_its_code_alone(model: FlowMo, images: Tensor) -> None:
    """Dropped codes leave the encoder no gradient from the flow loss (C3)."""
    noise, t, *_ = draws_for(images)
    for keep, reached in ((torch.ones(8), True), (torch.zeros(8), False)):
        model.zero_grad()
        flow = mode_matching_loss(model, images, Draws(noise, t, keep.bool()), LossWeights(0.0)).flow
        flow.backward()
        gradient = model.encoder.readout.weight.grad
        assert (gradient is not None and bool(gradient.any())) == reached


def test_a_batch_in_two_processes(model: FlowMo, images: Tensor) -> None:
    """A7: with the mean code averaged over both, losses and gradients are those of the whole batch."""
    draws = draws_for(images, dropout=0.3)
    weights = LossWeights(perceptual=0.0, entropy=1.0)
    means: list[Tensor] = []

    def note(mean: Tensor) -> Tensor:
        means.append(mean)
        return mean

    def halves(average: Callable[[Tensor], Tensor]) -> list[ModeMatchingLoss]:
        rows = slice(0, 4), slice(4, 8)
        return [
            mode_matching_loss(model, images[r], Draws(*(d[r] for d in draws[:3])), weights, average=average)
            for r in rows
        ]

    def gradients(loss: Tensor) -> dict[str, Tensor]:
        model.zero_grad()
        loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    whole = mode_matching_loss(model, images, draws, weights)
    alone = halves(note)
    together = halves(lambda _: (means[0] + means[1]) / 2)
    for name, expected in whole._asdict().items():
        average = sum(getattr(half, name) for half in together) / 2
        assert torch.allclose(average, expected, rtol=1e-5), name
    expected = gradients(whole.total)
    found = gradients((together[0].total + together[1].total) / 2)
    apart = gradients((alone[0].total + alone[1].total) / 2)
    for name in expected:
        assert (found[name] - expected[name]).norm() <= 1e-4 * expected[name].norm() + 1e-7, name
    readout = "encoder.readout.weight"
    assert (apart[readout] - expected[readout]).norm() > 0.05 * expected[readout].norm()


def test_a_frozen_encoder_costs_no_gradient(model: FlowMo, images: Tensor) -> None:
    """A14: the decoder's gradients stay what they were, all terms are still there, and the encoder's activations are
    not kept for a backward pass."""

    def run() -> tuple[ModeMatchingLoss, int, dict[str, Tensor]]:
        model.zero_grad()
        kept = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = mode_matching_loss(model, images, draws_for(images), LossWeights(), distance)
        loss.total.backward()
        return loss, kept, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    free, memory, gradients = run()
    model.encoder.requires_grad_(False)
    frozen, less, left = run()
    assert all(torch.equal(a, b) for a, b in zip(frozen, free, strict=True))
    assert frozen.codebook_entropy > 0
    assert set(left) == {name for name in gradients if name.startswith("decoder.")}
    assert all(torch.equal(left[name], gradients[name]) for name in left)
    assert less < 0.65 * memory
    model.encoder.requires_grad_(True)
    with torch.no_grad():
        assert not mode_matching_loss(model, images, draws_for(images), LossWeights()).total.requires_grad


def test_draws_follow_their_generator(images: Tensor) -> None:
    one, same, other = draws_for(images), draws_for(images), draws_for(images, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one[:3], same[:3], strict=True))
    assert not torch.equal(one.noise, other.noise)
    assert not torch.equal(one.t, other.t)
    assert one.noise.shape == images.shape
    assert one.t.shape == one.keep.shape == (8,)


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.9])
def test_code_dropout_has_its_share(dropout: float) -> None:
    images = torch.zeros(20_000, 3, 1, 1)
    assert abs(float((~draws_for(images, dropout).keep).double().mean()) - dropout) < 0.01


def test_a_clean_prediction_has_a_finite_loss_at_any_level(images: Tensor, lively: Callable) -> None:  # type: ignore[type-arg]
    model = lively(FlowMo(replace(tiny(), prediction="clean"))).train()
    levels = torch.tensor([0.0, 1e-6, 1e-3, 0.05, 0.1, 0.5, 0.9, 1.0])
    draws = Draws(torch.randn(images.shape), levels, torch.ones(8, dtype=torch.bool))
    loss: ModeMatchingLoss = mode_matching_loss(model, images, draws, LossWeights())
    loss.total.backward()
    assert loss.total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_kept_bits_are_all_that_the_decoder_sees(model: FlowMo, images: Tensor) -> None:
    """O12: a loss with fewer bits is that of a code whose other bits are 0."""
    draws = draws_for(images)._replace(bits=torch.full((len(images),), 5))
    loss = mode_matching_loss(model, images, draws, LossWeights(perceptual=0))
    code = model.quantize(model.encode(images)).code.clone()
    code[..., 5:] = 0
    level = draws.t[:, None, None, None]
    velocity = model.velocity(level * draws.noise + (1 - level) * images, code, draws.t)
    assert torch.allclose(loss.flow, ((velocity - (draws.noise - images)) ** 2).mean(), rtol=1e-5)
    assert not torch.allclose(
        loss.flow, mode_matching_loss(model, images, draws_for(images), LossWeights(perceptual=0)).flow
    )


def test_the_perceptual_network_sees_a_random_square(model: FlowMo, images: Tensor) -> None:
    seen = []

    def noting(estimate: Tensor, reference: Tensor) -> Tensor:
        seen.append(reference)
        return distance(estimate, reference)

    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        window = draw_window(images, 16, generator)
        mode_matching_loss(model, images, draws_for(images), LossWeights(), noting, window=window)
        assert torch.equal(seen[-1], images[..., window.rows, window.columns])
    assert {tuple(part.shape[-2:]) for part in seen} == {(16, 16)}
    assert not torch.equal(seen[0], seen[1])
    assert draw_window(images, None, generator) == WHOLE


def test_the_square_is_larger_or_smaller_and_brought_to_one_size(images: Tensor) -> None:
    """O6: as Pillow scales it; never more than the image, and one scale of 1 draws what no scales draw."""
    side, lengths, generator = images.shape[-1], Counter(), torch.Generator().manual_seed(0)
    for _ in range(60):
        window = draw_window(images, 18, generator, (2 / 3, 1.0, 1.5, 4.0))
        seen, part = window.of(images), images[..., window.rows, window.columns]
        lengths[part.shape[-1]] += 1
        assert seen.shape[-2:] == (18, 18)
        assert part.shape[-2] == part.shape[-1]
        for channel, expected in zip(seen[0], part[0], strict=True):
            resized = Image.fromarray(expected.numpy()).resize((18, 18), Image.Resampling.BILINEAR)
            assert torch.allclose(channel, torch.from_numpy(np.array(resized)), atol=1e-4)
    assert set(lengths) == {12, 18, 27, side}
    assert min(lengths.values()) > 5
    assert draw_window(images, 2 * side, generator, (2 / 3, 1.5)).of(images).shape == images.shape
    draws = [draw_window(images, 16, torch.Generator().manual_seed(5), *scales) for scales in ((), ((1.0,),))]
    assert draws[0] == draws[1]


def test_scales_of_the_square_reach_the_loss(model: FlowMo, images: Tensor) -> None:
    """Of both stages that train the encoder: LPIPS is given a quarter of the image, enlarged to all of its pixels."""
    side, seen = images.shape[-1], []
    settings = {"perceptual_crop": side, "perceptual_scales": (0.5,)}

    def noting(estimate: Tensor, reference: Tensor) -> Tensor:
        assert estimate.shape == reference.shape == images.shape
        seen.append(reference)
        return distance(estimate, reference)

    parts, batch = LossParts(noting), SimpleNamespace(images=images)
    ModeMatching(model, ModeMatchingConfig(**settings), parts)(batch, torch.Generator().manual_seed(0), 0)
    Autoencode(model, AutoencodeConfig(**settings), parts)(batch, torch.Generator().manual_seed(0), 0)
    half = side // 2
    for reference in seen:
        parts_of = (
            Window(slice(y, y + half), slice(x, x + half), side) for y in range(half + 1) for x in range(half + 1)
        )
        assert any(torch.equal(reference, part.of(images)) for part in parts_of)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"perceptual_scales": (1.5,)}, "set that too"),
        ({"perceptual_crop": 16, "perceptual_scales": ()}, "between 0.25 and 4"),
        ({"perceptual_crop": 16, "perceptual_scales": (1.0, 0.0)}, "between 0.25 and 4"),
        ({"perceptual_crop": 16, "perceptual_scales": (float("nan"),)}, "between 0.25 and 4"),
    ],
)
def test_scales_that_cannot_be_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ModeMatchingConfig(**settings)


def test_noise_sync_in_closed_form() -> None:
    """F6: a share of latents at t_z ~ U(0, 1) on the path of Eq. 4, their images at t ~ U(t_z, 1)."""
    count, share = 20_000, 0.25
    image, code = torch.zeros(count, 3, 2, 2), torch.full((count, 4, 3), 2.0)
    before = draw(image, ThickTailedLogitNormal(), 0.0, torch.Generator().manual_seed(0))
    draws = synchronize(before, share, (4, 3), torch.Generator().manual_seed(1))
    assert draws.sync is not None
    t_z = draws.sync.t
    noised = t_z > 0
    assert float(noised.float().mean()) == pytest.approx(share, abs=0.01)
    assert torch.equal(draws.t[~noised], before.t[~noised])
    given = draws.condition(code).code
    assert torch.equal(given[~noised], code[~noised])
    level = t_z[:, None, None]
    assert torch.allclose(given, level * draws.sync.noise + (1 - level) * 2.0)
    # Mean over t_z of (1 - t_z) 2 is 1; of the square, E[t_z^2] + 4 E[(1 - t_z)^2] = 5/3.
    assert float(given[noised].mean()) == pytest.approx(1.0, abs=0.03)
    assert float(given[noised].square().mean()) == pytest.approx(5 / 3, abs=0.05)
    assert (draws.t >= t_z).all()
    assert float(draws.t[noised].mean()) == pytest.approx(3 / 4, abs=0.01)  # E[(1 + t_z) / 2]


def test_without_noise_sync_nothing_else_is_drawn(model: FlowMo, images: Tensor) -> None:
    """Runs of before go on exactly: the same loss, and the generator is left where it was."""
    batch = type("Batch", (), {"images": images})()
    losses, states = [], []
    for share in (0.0, 0.0, 1.0):
        generator = torch.Generator().manual_seed(0)
        config = ModeMatchingConfig(noise_sync=share)
        losses.append(ModeMatching(model, config)(batch, generator, 0).flow)
        states.append(generator.get_state())
    plain = torch.Generator().manual_seed(0)
    draw(images, ThickTailedLogitNormal(), 0.1, plain)
    assert torch.equal(states[0], plain.get_state())
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])
