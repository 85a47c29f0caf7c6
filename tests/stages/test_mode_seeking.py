"""Stage 1B's loss (Section 3.3, Eq. 10-12; A.2; D1-D6): its chain, its gradients, and what it keeps in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from flowmo.config import TransformerConfig
from flowmo.flow import ThickTailedLogitNormal, image_estimate, integrate, shifted_grid
from flowmo.presets import flowmo_mini_64, tiny
from flowmo.profiling.memory import LiveTensors
from flowmo.stages import (
    ModeSeekingConfig,
    ModeSeekingLoss,
    PerceptualDistance,
    QuantizerWeights,
    SampleLossConfig,
    draw,
    draw_chain,
    sample_chain,
)
from flowmo.stages import mode_seeking_loss as loss_of
from flowmo.stages.mode_matching import Draws
from flowmo.stages.mode_seeking import ChainDraws
from flowmo.tokenizer import FlowMo

SLOW = os.environ.get("FLOWMO_SLOW")
WEIGHTS = QuantizerWeights()


@pytest.fixture
def model(lively: Callable[[nn.Module], nn.Module]) -> FlowMo:
    model = lively(FlowMo(tiny())).train()
    model.encoder.requires_grad_(False)
    return model  # type: ignore[return-value]


@pytest.fixture
def images(samples: Callable[[int], Tensor]) -> Tensor:
    return samples(32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws_for(images: Tensor, dropout: float = 0.0) -> Draws:
    return draw(images, ThickTailedLogitNormal(), dropout, generator())


def mode_seeking_loss(
    model: FlowMo,
    image: Tensor,
    draws: Draws,
    chain: ChainDraws | None,
    weight: float,
    perceptual: PerceptualDistance,
    losses: QuantizerWeights,
    share: float = 1.0,
    recompute: bool = True,
) -> ModeSeekingLoss:
    sample = SampleLossConfig(weight=weight, share=share, recompute=recompute)
    return loss_of(model, image, draws, chain, ModeSeekingConfig(losses=losses, sample=sample), perceptual)


def distance(image: Tensor, reference: Tensor) -> Tensor:
    return (image - reference).square().mean((1, 2, 3))


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def furthest(a: list[Tensor], b: list[Tensor]) -> float:
    assert len(a) == len(b) > 10
    return max(float((x - y).norm() / y.norm().clamp_min(1e-9)) for x, y in zip(a, b, strict=True))


def test_terms_are_named_and_add_up(model: FlowMo, images: Tensor) -> None:
    weights = QuantizerWeights(entropy=0.2, commitment=0.05)
    chain = draw_chain(images, 3, generator())
    loss = mode_seeking_loss(model, images, draws_for(images), chain, 0.7, distance, weights)
    assert isinstance(loss, ModeSeekingLoss)
    assert all(value.shape == () and value.isfinite() for value in loss[:-1])
    entropy = loss.sample_entropy - loss.codebook_entropy
    total = loss.flow + 0.7 * loss.sample + 0.2 * entropy + 0.05 * loss.commitment
    assert torch.allclose(loss.total, total)


def test_written_out(model: FlowMo, images: Tensor) -> None:
    """The flow loss drops codes (C3); the chain drops none, is unguided and starts from noise of its own (D1, D2)."""
    draws = draws_for(images, dropout=0.6)
    assert 0 < draws.keep.sum() < len(images)
    chain = draw_chain(images, 4, generator(1))
    loss = mode_seeking_loss(model, images, draws, chain, 0.01, distance, WEIGHTS)
    code = model.quantize(model.encode(images)).code
    t = draws.t[:, None, None, None]
    velocity = model.velocity((1 - t) * images + t * draws.noise, draws.condition(code), draws.t)
    assert torch.allclose(loss.flow, (velocity - (draws.noise - images)).square().mean(), rtol=1e-5)
    x = chain.noise
    for k in range(4):
        now, then = chain.grid[:, k], chain.grid[:, k + 1]
        x = x + (then - now)[:, None, None, None] * model.velocity(x, code, now)
    assert x.abs().max() > 1  # not clipped
    assert torch.allclose(loss.sample, (x - images).square().mean(), rtol=1e-4)
    assert not torch.equal(chain.noise, draws.noise)


def test_levels_and_noise_are_each_images_own(images: Tensor) -> None:
    chain = draw_chain(images, 8, generator())
    assert chain.noise.shape == images.shape
    assert chain.grid.shape == (8, 9)
    assert torch.equal(chain.grid[:, 0], torch.ones(8))
    assert torch.equal(chain.grid[:, -1], torch.zeros(8))
    assert (chain.grid.diff(dim=1) < 0).all()
    assert len({tuple(row.tolist()) for row in chain.grid}) == len({float(z.sum()) for z in chain.noise}) == 8
    assert not torch.equal(chain.grid, draw_chain(images, 8, generator(1)).grid)
    fixed = draw_chain(images, 8, generator(), grid=shifted_grid(8))
    assert torch.equal(fixed.grid, shifted_grid(8))


@pytest.mark.parametrize(("share", "count"), [(1.0, 8), (0.5, 4), (0.01, 1)])
def test_a_share_of_the_batch_gets_a_chain(share: float, count: int, model: FlowMo, images: Tensor) -> None:
    asked: list[Tensor] = []

    def note(image: Tensor, reference: Tensor) -> Tensor:
        asked.append(reference)
        return distance(image, reference)

    for chain in (draw_chain(images, 1, generator(), share), None):
        mode_seeking_loss(model, images, draws_for(images), chain, 0.01, note, WEIGHTS, share)
        assert torch.equal(asked.pop(), images[:count])


def test_one_step_compares_the_image_estimate(model: FlowMo, images: Tensor) -> None:
    """Table 7: the network of Stage 1B where Stage 1A has LPIPS."""
    draws = draws_for(images, dropout=0.3)
    loss = mode_seeking_loss(model, images, draws, None, 0.01, distance, WEIGHTS)
    t = draws.t[:, None, None, None]
    x_t = (1 - t) * images + t * draws.noise
    code = model.quantize(model.encode(images)).code
    estimate = image_estimate(x_t, model.velocity(x_t, draws.condition(code), draws.t), draws.t)
    assert torch.allclose(loss.sample, (estimate - images).square().mean(), rtol=1e-5)


def test_a_chain_of_one_step_is_the_estimate_from_pure_noise(model: FlowMo, images: Tensor) -> None:
    code = model.quantize(model.encode(images)).code
    chain = draw_chain(images, 1, generator())
    ones = torch.ones(len(images))
    expected = image_estimate(chain.noise, model.velocity(chain.noise, code, ones), ones)
    assert torch.allclose(sample_chain(model, code, chain), expected, atol=1e-5)


def test_without_weight_the_network_is_not_asked(model: FlowMo, images: Tensor) -> None:
    def never(*_: Tensor) -> Tensor:
        raise AssertionError("asked")

    assert mode_seeking_loss(model, images, draws_for(images), None, 0.0, never, WEIGHTS).sample == 0


def test_the_encoder_gets_no_gradient_and_no_graph(model: FlowMo, images: Tensor) -> None:
    """Nor any saved tensor: what is kept is the same with an encoder ten times as deep."""
    loss = mode_seeking_loss(model, images, draws_for(images), draw_chain(images, 2, generator()), 1, distance, WEIGHTS)
    loss.total.backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.decoder.parameters())

    def kept(depth: int) -> int:
        deep = FlowMo(replace(tiny(), encoder=replace(tiny().encoder, depth=depth))).train()
        deep.encoder.requires_grad_(False)
        with SavedBytes() as saved:
            mode_seeking_loss(deep, images, draws_for(images), None, 1, distance, WEIGHTS)
        return saved.count

    assert kept(2) == kept(20) > 0


def test_finite_differences(lively: Callable[[nn.Module], nn.Module], images: Tensor) -> None:
    """Float64: the gradient along random directions through the checkpointed chain is the slope of the loss, for both
    predictions and for shared modulation."""
    for config in (tiny(), replace(tiny(), prediction="clean", modulation="shared")):
        model: FlowMo = lively(FlowMo(config)).train().double()  # type: ignore[assignment]
        x = images[:2].double()
        code = torch.randn(2, 16, 18, generator=generator()).sign().double()
        chain = ChainDraws(*(part.double() for part in draw_chain(x, 3, generator())))
        parameters = list(model.decoder.parameters())

        def loss(model: FlowMo = model, code: Tensor = code, chain: ChainDraws = chain, x: Tensor = x) -> Tensor:
            return (sample_chain(model, code, chain) - x).square().mean()

        gradient = torch.autograd.grad(loss(), parameters)
        for seed in range(3):
            way = [torch.randn(p.shape, generator=generator(seed), dtype=torch.float64) for p in parameters]
            slope = sum(float((g * w).sum()) for g, w in zip(gradient, way, strict=True))
            values = []
            with torch.no_grad():
                for step in (1e-6, -2e-6, 1e-6):
                    for p, w in zip(parameters, way, strict=True):
                        p += step * w
                    values.append(float(loss()))
            assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope, rel=1e-6)


def test_checkpointed_is_plain(model: FlowMo, images: Tensor) -> None:
    code = model.quantize(model.encode(images)).code
    chain = draw_chain(images, 5, generator())
    both = [sample_chain(model, code, chain, recompute) for recompute in (True, False)]
    assert torch.equal(*both)
    checkpointed, plain = (gradients(model, distance(sample, images).mean()) for sample in both)
    assert furthest(checkpointed, plain) < 1e-6


@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",
        pytest.param("inductor", marks=pytest.mark.skipif(not SLOW, reason="50 s of compiling; set FLOWMO_SLOW=1")),
    ],
)
def test_compiled_is_plain(backend: str, lively: Callable[[nn.Module], nn.Module], images: Tensor) -> None:
    """Blocks compiled, as training compiles them, each step of the chain checkpointed around them (D6): traced graphs
    and their gradients always, the kernels made of them on request."""
    small = TransformerConfig(patch_size=8, width=32, depth=1, heads=2)
    model: FlowMo = lively(FlowMo(replace(tiny(), encoder=small, decoder=small))).train()  # type: ignore[assignment]
    code = model.quantize(model.encode(images[:2])).code.detach()
    chain = draw_chain(images[:2], 2, generator())
    plain = gradients(model, distance(sample_chain(model, code, chain, False), images[:2]).mean())
    for block in model.decoder.blocks:
        block.compile(backend=backend)
    compiled = gradients(model, distance(sample_chain(model, code, chain), images[:2]).mean())
    assert furthest(compiled, plain) < 1e-4


def test_the_state_stays_in_float32(model: FlowMo, images: Tensor) -> None:
    """Under bf16 autocast the network computes in bf16 and the state of the chain does not (A17)."""
    code = model.quantize(model.encode(images)).code
    seen: list[torch.dtype] = []
    with torch.autocast("cpu", torch.bfloat16):
        chain = draw_chain(images, 2, generator())
        sample = sample_chain(model, code, chain).detach()
        integrate(
            lambda x, t: (seen.append(x.dtype), model.velocity(x, code, t, exact=True))[1], chain.noise, chain.grid
        )
    exact = sample_chain(model, code, chain).detach()
    assert sample.dtype == torch.float32
    assert seen == [torch.float32] * 2
    assert 0 < float((sample - exact).norm() / exact.norm()) < 0.05


def test_a_clean_prediction_leaves_no_noise(lively: Callable[[nn.Module], nn.Module], images: Tensor) -> None:
    """In training mode too, the last step is divided by t itself, however small it is (O3)."""
    model: FlowMo = lively(FlowMo(replace(tiny(), prediction="clean"))).train()  # type: ignore[assignment]
    code = model.quantize(model.encode(images)).code
    grid = torch.tensor([1.0, 0.5, 1e-4, 0.0])
    noise = torch.randn(images.shape, generator=generator())
    training = sample_chain(model, code, ChainDraws(noise, grid))
    assert torch.allclose(training, sample_chain(model.eval(), code, ChainDraws(noise, grid)), atol=1e-6)


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Bytes of the distinct tensors that the forward pass saves for the backward pass."""

    def __init__(self) -> None:
        self.storages: dict[int, Tensor] = {}
        super().__init__(self.pack, lambda tensor: tensor)

    def __enter__(self) -> SavedBytes:
        super().__enter__()
        return self

    def pack(self, tensor: Tensor) -> Tensor:
        self.storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    @property
    def count(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self.storages.values())


def test_a_longer_chain_keeps_no_more(samples: Callable[[int], Tensor]) -> None:
    """From n = 2 to n = 16 what is saved for the backward pass grows by at most 15 %: by saved-tensor hooks, which see
    nothing inside the checkpoints, and by all tensors that are alive after the forward pass, their inputs included."""
    model = FlowMo(flowmo_mini_64()).train()
    model.encoder.requires_grad_(False)
    images = samples(64)[:1]

    def kept(steps: int, recompute: bool = True) -> tuple[int, int]:
        chain, draws = draw_chain(images, steps, generator()), draws_for(images)
        with LiveTensors() as live, SavedBytes() as saved:
            before = live.now
            loss = mode_seeking_loss(model, images, draws, chain, 1, distance, WEIGHTS, recompute=recompute)
            alive = live.now - before
        assert loss.total.requires_grad
        return saved.count, alive

    short, long, plain = kept(2), kept(16), kept(16, recompute=False)
    for i in range(2):
        assert short[i] <= long[i] <= 1.15 * short[i], (short, long)
        assert plain[i] > 5 * long[i]
