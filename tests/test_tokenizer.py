"""The user's verbs: nothing depends on the batch, seeds mean what they say, wrong input is explained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowmo.config import FlowMoConfig, QuantizerConfig, SamplerConfig
from flowmo.errors import ConfigError, ImageError
from flowmo.presets import flowmo_hi, flowmo_lo, flowmo_mini_64, flowmo_mini_hi, flowmo_mini_lo, tiny
from flowmo.quantize.tokens import Tokens
from flowmo.tokenizer import FlowMo
from flowmo.weights import load_model, save_model

FEW = replace(tiny(), sampler=SamplerConfig(num_steps=4))


@pytest.fixture(params=["velocity", "clean"])
def model(request: pytest.FixtureRequest, lively: Callable[[nn.Module], nn.Module]) -> FlowMo:
    return lively(FlowMo(replace(FEW, prediction=request.param)))  # type: ignore[return-value]


@pytest.fixture
def images(samples: Callable[[int], Tensor]) -> Tensor:
    return samples(32)


def same_up_to_near_zero(a: Tokens, b: Tokens, model: FlowMo, images: Tensor) -> bool:
    """Equal but for bits whose latent is within 1e-4 of zero, where rounding may decide."""
    latent = model.encode(images).detach()
    return bool(((signs(a) == signs(b)) | (latent.abs() < 1e-4)).all())


def signs(tokens: Tokens) -> Tensor:
    shifts = torch.arange(tokens.bits_per_group)
    return ((tokens.indices[:, :, None] >> shifts[:, None]) & 1).flatten(2) * 2.0 - 1


@pytest.mark.parametrize("order", [[0], [7], [3, 5], [7, 6, 5, 4, 3, 2, 1, 0], [2, 2, 2]])
def test_the_batch_changes_nothing(order: list[int], model: FlowMo, images: Tensor) -> None:
    """Tokens and pixels of a picture are those it has in any other company and place."""
    seeds = list(range(8))
    tokens = model.tokenize(images)
    some = model.tokenize(images[order])
    expected = Tokens(tokens.indices[order], tokens.bits_per_group, tokens.image_size)
    assert same_up_to_near_zero(some, expected, model, images[order])
    whole = model.detokenize(tokens, seed=seeds)
    part = model.detokenize(expected, seed=[seeds[i] for i in order])
    assert (part - whole[order]).abs().max() < 1e-3
    assert (whole[0] - whole[1]).abs().mean() > 0.01


def test_pictures_have_tokens_of_their_own(model: FlowMo, images: Tensor) -> None:
    tokens = model.tokenize(images)
    assert tokens.indices.shape == (8, 16, 2)
    assert tokens.image_size == (32, 32)
    assert len({row.tobytes() for row in tokens.indices.numpy()}) == 8
    assert 0 <= int(tokens.indices.min()) <= int(tokens.indices.max()) < 512


def test_seeds(model: FlowMo, images: Tensor) -> None:
    tokens = model.tokenize(images[[0, 0]])
    alike = model.detokenize(tokens, seed=4)
    assert torch.allclose(alike[0], alike[1], atol=1e-5)
    each = model.detokenize(tokens, seed=[4, 5])
    assert torch.allclose(each[0], alike[0], atol=1e-5)
    assert (each[0] - each[1]).abs().mean() > 1e-3
    assert torch.equal(model.detokenize(tokens), model.detokenize(tokens, seed=0))
    with pytest.raises(ConfigError, match="3 seeds for 2 images"):
        model.detokenize(tokens, seed=[1, 2, 3])


def test_seeds_may_be_numpys(model: FlowMo, images: Tensor) -> None:
    tokens = model.tokenize(images[:2])
    assert torch.equal(model.detokenize(tokens, seed=np.int64(4)), model.detokenize(tokens, seed=4))
    assert torch.equal(model.detokenize(tokens, seed=np.array([4, 5])), model.detokenize(tokens, seed=[4, 5]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_take_the_same_pictures(dtype: torch.dtype, model: FlowMo, images: Tensor) -> None:
    expected, tokens = model.encode(images), model.tokenize(images)
    again = model.detokenize(tokens, guidance_scale=1.0)
    model.to(dtype)
    assert (model.encode(images) - expected).norm() < 0.05 * expected.norm()
    assert model.tokenize(images.to(dtype)).indices.shape == tokens.indices.shape
    found = model.detokenize(tokens, guidance_scale=1.0)
    assert found.dtype == torch.float32  # the sampler's state
    assert (found - again).abs().mean() < 0.05


def test_samples_are_the_same_in_training_mode(model: FlowMo, images: Tensor) -> None:
    tokens = model.tokenize(images[:2])
    assert torch.equal(model.detokenize(tokens), model.train().detokenize(tokens))


def test_settings_of_the_sampler(model: FlowMo, images: Tensor) -> None:
    """Given to the call, or stored with the model: the same picture. Each changes it."""
    tokens = model.tokenize(images[:2])
    default = model.detokenize(tokens)
    settings = {"num_steps": 6, "rho": 2.0, "guidance_scale": 3.0, "guidance_interval": (0.0, 1.0)}
    for name, value in settings.items():
        assert not torch.allclose(model.detokenize(tokens, **{name: value}), default, atol=1e-4), name
    stored = FlowMo(replace(model.config, sampler=SamplerConfig(**settings))).eval()
    stored.load_state_dict(model.state_dict())
    assert torch.equal(stored.detokenize(tokens), model.detokenize(tokens, **settings))
    assert torch.equal(model.reconstruct(images[:2], num_steps=2), model.detokenize(tokens, num_steps=2))
    for wrong in ({"num_steps": 0}, {"rho": 0.0}, {"guidance_interval": (0.5, 0.2)}):
        with pytest.raises(ConfigError):
            model.detokenize(tokens, **wrong)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 3}, "unknown setting 'steps'; did you mean 'num_steps'"),
        ({"num_steps": 2.5}, "num_steps must be int, got 2.5"),
        ({"num_steps": "2"}, "num_steps must be int"),
        ({"guidance_scale": "much"}, "guidance_scale must be float"),
        ({"guidance_interval": 0.5}, "guidance_interval must be a list"),
        ({"solver": "rk4"}, "solver must be one of euler, heun; got 'rk4'"),
        ({"seed": None}, "a seed is one integer, or a list of one an image; got None"),
        ({"seed": 1.5}, "a seed is one integer"),
        ({"seed": "ab"}, "a seed is one integer"),
        ({"seed": [1]}, "1 seeds for 2 images"),
    ],
)
def test_wrong_settings_are_explained(settings: dict[str, object], said: str, model: FlowMo, images: Tensor) -> None:
    with pytest.raises(ConfigError, match=said):
        model.detokenize(model.tokenize(images[:2]), **settings)  # type: ignore[arg-type]


def test_settings_may_be_numpys_and_torchs(model: FlowMo, images: Tensor) -> None:
    tokens = model.tokenize(images[:2])
    given = {"num_steps": np.int64(2), "guidance_scale": torch.tensor(1.25), "rho": np.float32(2)}
    plain = {"num_steps": 2, "guidance_scale": 1.25, "rho": 2.0}
    assert torch.equal(model.detokenize(tokens, **given), model.detokenize(tokens, **plain))
    assert torch.equal(model.detokenize(tokens, seed=torch.arange(2)), model.detokenize(tokens, seed=[0, 1]))


def test_only_tokens_are_decoded(model: FlowMo, images: Tensor) -> None:
    tokens = model.tokenize(images[:2])
    for wrong in (tokens.indices, tokens.numpy(), [tokens], tokens.to_bytes(), "a.flowmo", None):
        with pytest.raises(ConfigError, match=r"decodes Tokens, not .*from_numpy, from_bytes"):
            model.detokenize(wrong)  # type: ignore[arg-type]


def test_pictures_come_back_in_range_and_without_gradients(model: FlowMo, images: Tensor) -> None:
    again = model.reconstruct(images)
    assert again.abs().max() == 1  # clipped: a lively random model goes beyond
    assert not again.requires_grad
    assert model.velocity(images, model.quantize(model.encode(images)).code, torch.ones(8)).requires_grad


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda x: ((x + 1) * 127.5).to(torch.int32), r"uint8 or floating point, got torch.int32"),
        (lambda x: (x + 1) * 127.5, r"must lie in \[-1, 1\], got values from .* to 2.*image / 127.5 - 1"),
        (lambda x: x.where(x < 0.5, torch.nan), r"must lie in \[-1, 1\]"),
        (lambda x: x[None], "must be B 3 H W"),
        (lambda x: x[:, :1], "must be B 3 H W"),
        (lambda x: x.permute(0, 2, 3, 1), "must be B 3 H W"),
        (lambda x: x[:, :, :30], "30 x 32 must be multiples of the patch size 8"),
    ],
)
def test_wrong_pictures_are_explained(make: Callable[[Tensor], Tensor], said: str, images: Tensor) -> None:
    with pytest.raises(ImageError, match=said):
        FlowMo(FEW).tokenize(make(images))


def test_no_pictures_are_no_trouble(model: FlowMo) -> None:
    tokens = model.tokenize(torch.zeros(0, 3, 32, 32))
    assert tokens.indices.shape == (0, 16, 2)
    assert model.detokenize(tokens).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    ("shape", "bits"),
    [((1, 8, 2), 9), ((1, 16, 1), 9), ((1, 16, 2), 8)],
)
def test_tokens_of_another_model_are_refused(shape: tuple[int, int, int], bits: int) -> None:
    tokens = Tokens(torch.zeros(shape, dtype=torch.int64), bits, (32, 32))
    with pytest.raises(ConfigError, match=r"the model decodes 16 x 2 .*use the model"):
        FlowMo(FEW).detokenize(tokens)


def test_a_continuous_model_has_no_tokens(images: Tensor) -> None:
    model = FlowMo(replace(FEW, quantizer=QuantizerConfig(kind="continuous")))
    with pytest.raises(ConfigError, match="no tokens"):
        model.tokenize(images)


def test_fingerprint_is_of_the_encoder_alone(model: FlowMo, tmp_path: Path) -> None:
    mark = model.fingerprint()
    assert 0 <= mark < 2**32
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter *= 1.1
    assert model.fingerprint() == mark
    for dtype in (torch.float16, torch.float32):
        save_model(model, tmp_path / "m.safetensors", dtype)
        assert load_model(tmp_path / "m.safetensors").fingerprint() == mark
    sampler = SamplerConfig(num_steps=2)
    assert load_model(tmp_path / "m.safetensors", sampler).fingerprint() == mark
    model.config = replace(model.config, quantizer=QuantizerConfig(temperature=1.0))  # of a loss alone
    assert model.fingerprint() == mark
    with torch.no_grad():
        model.encoder.readout.bias[3] += 0.01
    assert model.fingerprint() != mark


@pytest.mark.parametrize(
    "change",
    [
        {"latent_positions": "grid"},
        {"bits_per_group": 6},
        {"quantizer": QuantizerConfig(tanh_bound=True)},
    ],
)
def test_fingerprint_is_of_what_tokens_mean(change: dict[str, object]) -> None:
    one, other = FlowMo(FEW), FlowMo(replace(FEW, **change))  # type: ignore[arg-type]
    other.load_state_dict(one.state_dict())
    assert one.fingerprint() != other.fingerprint()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        *((flowmo_lo(), 0.0703125), (flowmo_hi(), 0.21875), (flowmo_mini_64(), 0.28125), (tiny(), 0.28125)),
        *((flowmo_mini_lo(), 0.0703125), (flowmo_mini_hi(), 0.21875)),
    ],
)
def test_bits_per_pixel(config: FlowMoConfig, expected: float) -> None:
    assert config.bits_per_pixel == pytest.approx(expected)
    indices = torch.zeros(1, config.num_tokens, config.num_groups, dtype=torch.int64)
    tokens = Tokens(indices, config.bits_per_group, (config.image_size, config.image_size))
    assert tokens.bits_per_pixel == pytest.approx(expected)
    assert 8 * len(tokens.to_bytes()[0]) == expected * config.image_size**2
