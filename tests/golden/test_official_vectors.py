"""The released model's own numbers: every array of its small golden configuration, at the stated bar.

Each array of the file is one test, so none can be forgotten; ``test_nothing_is_computed_in_vain`` holds the converse.
"""

from __future__ import annotations

import copy
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import flowmo.weights
from flowmo.config import SamplerConfig
from flowmo.flow import image_estimate, integrate, interpolate, random_grid, shifted_grid, velocity_target
from flowmo.flow.guidance import Guidance
from flowmo.stages import LossWeights, sample_chain
from flowmo.stages.mode_seeking import ChainDraws
from flowmo.tokenizer import FlowMo
from flowmo.weights import official_layout

GOLDEN = Path(os.environ.get("FLOWMO_SHARED", Path(__file__).parents[3] / "shared")) / "golden"
NPZ = GOLDEN / "official_tiny_lo.npz"
NAMES = list(np.load(NPZ).files) if NPZ.is_file() else []
INPUTS = ("image", "noise", "train_t", "posttrain_u")
EXACT = ("code", "indices_entropy_groups")
CHAINS = ("sample_", "trajectory_", "posttrain_")  # many passes: a bar of 5e-4 instead of 1e-4
SAMPLERS = {
    "pow_0.25_4_cfg1.5": (4, 4.0, 1.5),
    "pow_0.25_25_cfg1.5": (25, 4.0, 1.5),
    "pow_0.25_25_cfg1.0": (25, 4.0, 1.0),
    "linear_8_cfg1.0": (8, 1.0, 1.0),
}


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in np.load(shared / "golden" / NPZ.name).items()}


@pytest.fixture(scope="module")
def released(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file shaped like the released ones, its weights by the rule of the vectors; the raw ones are spoilt."""
    description = json.loads((shared / "golden" / "official_tiny_lo.json").read_text())
    ema = {key: torch.from_numpy(filled(key, tuple(shape))) for key, shape in description["keys"].items()}
    raw = {key: 1.5 * value + 0.01 for key, value in ema.items()}
    path = tmp_path_factory.mktemp("released") / "flowmo_tiny.pth"
    torch.save({"total_steps": 7, "model_state_dict": raw, "model_ema_state_dict": ema}, path)
    return path


def filled(key: str, shape: tuple[int, ...]) -> np.ndarray:
    a = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("_norm.scale"):
        return (1 + 0.1 * a).astype(np.float32)
    return (a / np.sqrt(shape[1]) if len(shape) > 1 else 0.1 * a).astype(np.float32)


@pytest.fixture(scope="module")
def model(released: Path) -> FlowMo:
    return flowmo.weights.load(released, num_tokens=16, image_size=32)


@pytest.fixture(scope="module")
def ours(model: FlowMo, golden: dict[str, Tensor]) -> dict[str, Tensor]:
    """Everything that we compute, under the names of the file: on the CPU, or where FLOWMO_TEST_DEVICE says."""
    device = os.environ.get("FLOWMO_TEST_DEVICE", "cpu")
    there, given = copy.deepcopy(model).to(device), {name: tensor.to(device) for name, tensor in golden.items()}
    found = {**single_passes(there, given), **samples(there, given)}
    found.update(training(there, given))
    found.update(chain(there, given))
    return {name: tensor.cpu() for name, tensor in found.items()}


def single_passes(model: FlowMo, golden: dict[str, Tensor]) -> dict[str, Tensor]:
    noise, code = golden["noise"], golden["code"]
    with torch.no_grad():
        latent = model.encode(golden["image"])
        quantized = model.quantize(latent)
        found = {
            "latent": latent,
            "code": quantized.code,
            "indices_entropy_groups": quantized.tokens.flatten(),
            "lfq_entropy_loss": quantized.losses.entropy,
            "lfq_per_sample_entropy": quantized.losses.sample_entropy,
            "lfq_codebook_entropy": quantized.losses.codebook_entropy,
            "lfq_commitment": quantized.losses.commitment,
        }
        for level in (1.0, 0.5, 0.1):
            t = torch.full((2,), level)
            found[f"velocity_t{level}"] = model.velocity(noise, code, t)
            found[f"velocity_null_t{level}"] = model.velocity(noise, None, t)
    return found


def samples(model: FlowMo, golden: dict[str, Tensor]) -> dict[str, Tensor]:
    noise, code = golden["noise"], golden["code"]
    found = {}
    with torch.no_grad():
        for name, (steps, rho, scale) in SAMPLERS.items():
            found[f"sample_{name}"] = model.sample(code, noise, SamplerConfig(steps, rho, scale)).clamp(-1, 1)
        states: list[Tensor] = []
        velocity = Guidance(1.5)(lambda x, t: model.velocity(x, code, t), lambda x, t: model.velocity(x, None, t))
        integrate(velocity, noise, shifted_grid(4, 4.0), on_step=lambda _, state: states.append(state))
        found["trajectory_pow_0.25_4_cfg1.5"] = torch.stack(states)
    return found


def training(model: FlowMo, golden: dict[str, Tensor]) -> dict[str, Tensor]:
    """One training forward without code dropout, and the gradients of flow loss + quantizer loss."""
    image, noise, t = golden["image"], golden["noise"], golden["train_t"]
    model.zero_grad()
    quantized = model.quantize(model.encode(image))
    x_t = interpolate(image, noise, t)
    velocity = model.velocity(x_t, quantized.code, t)
    flow = (velocity - velocity_target(image, noise)).square().mean()
    quantizer = LossWeights().quantizer_loss(quantized.losses)
    (flow + quantizer).backward()
    return {
        "train_velocity": velocity.detach(),
        "train_flow_loss": flow.detach(),
        "train_quantizer_loss": quantizer.detach(),
        "train_denoised": image_estimate(x_t, velocity, t).detach(),
    } | gradients(model, "grad:")


def chain(model: FlowMo, golden: dict[str, Tensor]) -> dict[str, Tensor]:
    """Eight unguided steps at random levels, each checkpointed, and the gradients through all of them."""
    model.zero_grad()
    code = golden["code"]
    sample = sample_chain(model, code, ChainDraws(golden["noise"], random_grid(golden["posttrain_u"])))
    (sample - golden["image"]).square().mean().backward()
    return {"posttrain_sample": sample.detach()} | gradients(model, "posttrain_grad:")


def gradients(model: FlowMo, prefix: str) -> dict[str, Tensor]:
    """Of the keys that the file has, at their place in the released tensors; rows that we do not keep are zero."""
    found = {}
    layout = official_layout(model.config)
    for name in NAMES:
        if name.startswith(prefix):
            slot = layout[name.removeprefix(prefix)]
            gradient = torch.zeros(slot.shape)
            slot.part(gradient).copy_(model.get_parameter(slot.name).grad)
            found[name] = gradient
    return found


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.skipif(not NAMES, reason=f"needs the golden vectors at {GOLDEN} (or FLOWMO_SHARED)")
@pytest.mark.parametrize("name", NAMES)
def test_array(name: str, ours: dict[str, Tensor], golden: dict[str, Tensor]) -> None:
    expected = golden[name]
    if name in INPUTS:  # nothing to compute: what the file feeds to both models must be what its description says
        check_input(name, expected)
        return
    found = ours[name]
    assert found.shape == expected.shape
    if name in EXACT:
        assert torch.equal(found, expected)
    elif not expected.any():
        assert name == "grad:encoder.txt_in.weight"  # c_0 = 0 gives its projection no gradient (B4)
        assert not found.any()
    else:
        assert relative_error(found, expected) <= (5e-4 if name.startswith(CHAINS) else 1e-4)


def check_input(name: str, array: Tensor) -> None:
    if name in ("image", "noise"):
        assert array.shape == (2, 3, 32, 32)
        assert array.abs().max() <= 1 or name == "noise"
    else:
        assert array.shape == {"train_t": (2,), "posttrain_u": (2, 9)}[name]
        assert 0 < array.min() <= array.max() < 1


def test_nothing_is_computed_in_vain(ours: dict[str, Tensor]) -> None:
    assert {*ours, *INPUTS} == set(NAMES)


def test_the_numbers_are_not_trivially_equal(
    released: Path, model: FlowMo, golden: dict[str, Tensor], ours: dict[str, Tensor]
) -> None:
    """The raw weights, the null condition, no guidance: each is another function, so the bar does tell."""
    raw = flowmo.weights.load(released, ema=False, num_tokens=16, image_size=32)
    with torch.no_grad():
        assert relative_error(raw.encode(golden["image"]), golden["latent"]) > 0.1
    assert relative_error(ours["velocity_null_t1.0"], golden["velocity_t1.0"]) > 1e-2
    assert relative_error(ours["sample_pow_0.25_25_cfg1.0"], golden["sample_pow_0.25_25_cfg1.5"]) > 5e-3


@pytest.mark.parametrize("change", ["attention scale", "one norm", "contiguous groups", "no epsilon"])
def test_the_warts_are_seen(
    change: str, model: FlowMo, golden: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one would write from the paper alone misses the bar (B1, B6, A8, A6)."""
    t = torch.ones(2)
    with torch.no_grad():
        if change == "attention scale":
            for block in model.decoder.blocks:
                monkeypatch.setattr(block, "attention_scale", block.attention_scale * 1.1)
            error = relative_error(model.velocity(golden["noise"], golden["code"], t), golden["velocity_t1.0"])
        elif change == "one norm":
            norm: Callable[..., Tensor] = torch.nn.functional.layer_norm
            monkeypatch.setattr("flowmo.arch.decoder.F.layer_norm", keeping_first_norms(norm, model))
            error = relative_error(model.velocity(golden["noise"], golden["code"], t), golden["velocity_t1.0"])
        elif change == "contiguous groups":
            bits = (golden["code"] > 0).long().unflatten(-1, (2, 9))
            indices = (bits * 2 ** torch.arange(9)).sum(-1).flatten()
            error = float((indices != golden["indices_entropy_groups"]).float().mean())
        else:
            monkeypatch.setattr("flowmo.quantize.lfq.EPSILON", 1e-30)
            losses = model.quantize(golden["latent"]).losses
            error = relative_error(losses.codebook_entropy, golden["lfq_codebook_entropy"])
    assert error > 1.2e-4


def keeping_first_norms(norm: Callable[..., Tensor], model: FlowMo) -> Callable[..., Tensor]:
    """layer_norm, but the last call of a decoder pass returns its input."""
    per_pass = 4 * len(model.decoder.blocks)  # two a stream and block, one less in the last, one to modulate
    calls = 0

    def skipping(x: Tensor, *arguments: object, **settings: object) -> Tensor:
        nonlocal calls
        calls += 1
        return x if calls > per_pass else norm(x, *arguments, **settings)

    return skipping
