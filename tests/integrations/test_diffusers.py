"""FlowMo behind diffusers' interface: the same numbers, and its own way of saving and loading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flowmo.config import QuantizerConfig
from flowmo.errors import ConfigError
from flowmo.presets import flowmo_mini_8, flowmo_mini_64, tiny
from flowmo.tokenizer import FlowMo


@pytest.fixture(scope="module", autouse=True)
def _diffusers() -> None:
    """Import what takes seconds here, in the one process that runs these tests, not in all that collect them."""
    global AutoencoderFlowMo
    pytest.importorskip("diffusers", reason="needs diffusers: pip install 'flowmo[diffusers]'")
    from flowmo.integrations.diffusers import AutoencoderFlowMo


@pytest.fixture
def model(lively: Callable[[nn.Module], nn.Module]) -> FlowMo:
    return lively(FlowMo(tiny()))  # type: ignore[return-value]


@pytest.fixture
def images(samples: Callable[[int], Tensor]) -> Tensor:
    return samples(32)[:3]


@torch.no_grad()
def test_the_same_code_and_the_same_images(model: FlowMo, images: Tensor) -> None:
    adapter = AutoencoderFlowMo.from_flowmo(model)
    encoded = adapter.encode(images)
    assert encoded.tokens == model.tokenize(images)
    assert encoded.latents.shape == (3, 16, 18)
    for latents in (encoded.latent_dist.sample(), encoded.latent_dist.mode(), encoded["latents"]):
        assert torch.equal(latents, encoded.latents)
    assert float(encoded.latent_dist.kl().sum()) == 0
    expected = model.detokenize(encoded.tokens, seed=[1, 2, 3], num_steps=3)
    decoded = adapter.decode(encoded.latents, seed=[1, 2, 3], num_steps=3)
    assert torch.equal(decoded.sample, expected)
    (again,) = adapter.decode(0.3 * encoded.latents, return_dict=False, seed=[1, 2, 3], num_steps=3)
    assert torch.equal(again, expected)
    assert torch.equal(adapter(images, seed=5).sample, model.reconstruct(images, seed=5))
    drawn = [adapter.decode(encoded.latents, generator=torch.Generator().manual_seed(s)).sample for s in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert adapter.decode(encoded.latents, size=(40, 32)).sample.shape == (3, 3, 40, 32)


@pytest.mark.parametrize("preset", [tiny, flowmo_mini_64, flowmo_mini_8])
@pytest.mark.parametrize("low_memory", [True, False])
def test_saved_and_loaded_by_diffusers(
    preset: Callable, low_memory: bool, lively: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    model = lively(FlowMo(preset()))
    AutoencoderFlowMo.from_flowmo(model).save_pretrained(tmp_path)  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    loaded = AutoencoderFlowMo.from_pretrained(tmp_path, low_cpu_mem_usage=low_memory)
    assert loaded.tokenizer.config == model.config
    images = torch.rand(2, 3, model.config.image_size, model.config.image_size) * 2 - 1
    with torch.no_grad():
        assert torch.equal(loaded(images).sample, AutoencoderFlowMo.from_flowmo(model)(images).sample)  # type: ignore[arg-type]
    assert all(not tensor.is_meta for tensor in [*loaded.parameters(), *loaded.buffers()])


def test_of_the_packaged_model_and_of_other_quantizers(images: Tensor) -> None:
    adapter = AutoencoderFlowMo.from_flowmo("flowmo-mini")
    assert adapter.encode(torch.zeros(1, 3, 64, 64)).latents.shape == (1, 16, 56)
    config = replace(tiny(), quantizer=QuantizerConfig("continuous"))
    adapter = AutoencoderFlowMo.from_flowmo(FlowMo(config))
    encoded = adapter.encode(images)
    assert encoded.tokens is None
    assert adapter.decode(encoded.latents, num_steps=1).sample.shape == images.shape


@torch.no_grad()
def test_the_packaged_model_has_any_size_and_rate(samples: Callable[[int], Tensor]) -> None:
    adapter = AutoencoderFlowMo.from_flowmo()
    model, images = adapter.tokenizer, samples(128)[:2]
    encoded = adapter.encode(images)
    assert encoded.latents.shape == (2, 64, 56)
    whole = model.detokenize(encoded.tokens, seed=[4, 5])
    assert torch.equal(adapter.decode(encoded.latents, seed=[4, 5]).sample, whole)
    cut = torch.where(torch.arange(56) < 18, encoded.latents, 0.0)
    shorter = model.detokenize(encoded.tokens.truncate(bits=18), seed=[4, 5])
    assert torch.equal(adapter.decode(cut, seed=[4, 5]).sample, shorter)
    wide = images[..., :64, :]
    assert torch.equal(adapter(wide, seed=3).sample, model.reconstruct(wide, seed=3))
    with pytest.raises(ConfigError, match=r"B 256 56 .* 256 x 256 pixels, got \(2, 32, 56\); size="):
        adapter.decode(encoded.latents[:, :32])


def test_gradients_reach_the_images(model: FlowMo, images: Tensor) -> None:
    """As of any autoencoder: losses on what is decoded train it."""
    images.requires_grad_()
    AutoencoderFlowMo.from_flowmo(model).decode(torch.ones(3, 16, 18), num_steps=2).sample.sum().backward()
    assert model.decoder.code_in.weight.grad is not None


def test_wrong_latents_are_explained(model: FlowMo) -> None:
    with pytest.raises(ConfigError, match=r"B 16 18 \(tokens, bits\) .*got \(1, 4, 8, 8\)"):
        AutoencoderFlowMo.from_flowmo(model).decode(torch.zeros(1, 4, 8, 8))
