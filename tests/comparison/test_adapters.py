"""Tokenizers of others: a TorchScript pair, functions, diffusers where it is installed; ours behind the same face."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowmo.comparison.adapters import FlowMoPeer, PairPeer, ThumbnailPeer, open_peer
from flowmo.errors import ConfigError, WeightsError
from flowmo.metrics.pixels import psnr, thumbnail
from flowmo.tokenizer import FlowMo

SEEDS = range(8)
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


class ToTokens(nn.Module):
    """A real, if small, tokenizer: a thumbnail of 8 x 8 pixels with 16 levels a colour, 12 bits a pixel."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        levels = ((F.avg_pool2d(images, 8) + 1) / 2 * 15).round().long()
        return levels[:, 0] * 256 + levels[:, 1] * 16 + levels[:, 2], levels


class FromTokens(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        levels = torch.stack([tokens // 256, tokens // 16 % 16, tokens % 16], 1)
        return F.interpolate(levels.float() / 15 * 2 - 1, scale_factor=8.0, mode="nearest")


@pytest.fixture
def pair(tmp_path: Path, samples: Callable[[int], Tensor]) -> str:
    """ENCODER,DECODER of two files that were traced and saved."""
    encoder, decoder = ToTokens(), FromTokens()
    x = samples(64)
    torch.jit.trace(encoder, x).save(str(tmp_path / "encoder.pt"))
    torch.jit.trace(decoder, encoder(x)[0]).save(str(tmp_path / "decoder.pt"))
    return f"{tmp_path}/encoder.pt,{tmp_path}/decoder.pt"


def test_a_torchscript_pair(pair: str, samples: Callable[[int], Tensor]) -> None:
    x = samples(64)
    peer = open_peer(f"small=torchscript:{pair},bits_per_token=12", trust=True)
    again = peer.reconstruct(x, SEEDS)
    assert torch.equal(again, FromTokens()(ToTokens()(x)[0]))
    assert psnr(again, x).mean() > 15
    assert peer.bytes_per_image(64, 64) == 8 * 8 * 12 // 8
    assert peer.name == "small"
    assert "12 bits" in peer.counting
    silent = open_peer(f"small=torchscript:{pair}", trust=True)
    assert torch.equal(silent.reconstruct(x, SEEDS), again)
    assert silent.bytes_per_image(64, 64) is None


def test_torchscript_is_code_and_needs_trust(pair: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"your rights.*--trust"):
        open_peer(f"small=torchscript:{pair}")
    (tmp_path / "encoder.pt").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"encoder\.pt"):
        open_peer(f"small=torchscript:{pair}", trust=True)


MODULE = """
import pathlib
pathlib.Path("was_run").touch()

import torch
import torch.nn.functional as F

def blur(images):
    return F.interpolate(F.avg_pool2d(images, 4), scale_factor=4.0)

def encode(images):
    return ((F.avg_pool2d(images, 8) + 1) / 2 * 255).round().int()

def latent(images):
    return F.avg_pool2d(images, 8)

def decode(tokens):
    images = tokens / 255 * 2 - 1 if tokens.dtype == torch.int32 else tokens
    return F.interpolate(images, scale_factor=8.0)

def small(images):
    return images[:, :, :32]

number = 7
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a module in the current folder, another for each test."""
    name = f"of_others_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


def test_functions(module: str, samples: Callable[[int], Tensor]) -> None:
    x = samples(64)
    blur = open_peer(f"blur={module}:blur,bits_per_image=6144", trust=True)
    assert torch.allclose(F.avg_pool2d(blur.reconstruct(x, SEEDS), 4), F.avg_pool2d(x, 4), atol=1e-6)
    assert blur.bytes_per_image(64, 64) == 768
    assert open_peer(f"blur={module}:blur", trust=True).bytes_per_image(64, 64) is None
    tokens = open_peer(f"t={module}:encode,decode={module}:decode,bits_per_token=8", trust=True)
    continuous = open_peer(f"t={module}:latent,decode={module}:decode,bits_per_token=8", trust=True)
    a, b = tokens.reconstruct(x, SEEDS), continuous.reconstruct(x, SEEDS)
    assert 0 < (a - b).abs().max() <= 1.01 / 255
    assert tokens.bytes_per_image(64, 64) == 3 * 8 * 8
    assert continuous.bytes_per_image(64, 64) is None
    assert "not integers" in continuous.counting


def test_a_module_is_not_run_without_trust(module: str) -> None:
    with pytest.raises(ConfigError, match="--trust"):
        open_peer(f"blur={module}:blur")
    assert not Path("was_run").exists()


def test_outputs_that_are_no_images_are_refused(module: str, samples: Callable[[int], Tensor]) -> None:
    x = samples(64)
    for function, problem in (("small", "shape"), ("encode", "torch.int32")):
        with pytest.raises(ConfigError, match=problem):
            open_peer(f"x={module}:{function}", trust=True).reconstruct(x, SEEDS)
    with pytest.raises(ConfigError, match="tensor"):
        PairPeer("x", lambda images: None, lambda tokens: tokens).reconstruct(x, SEEDS)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "name",
        "name=",
        "name=torchscript",
        "name=torchscript:one.pt",
        "name=torchscript:a.pt,b.pt,c.pt",
        "name=torchscript:a.pt,b.pt,bits_per_image=3",
        "name=torchscript:a.pt,b.pt,bits_per_token=many",
        "name=torchscript:a.pt,b.pt,bits_per_token=-1",
        "name=diffusers:folder,bits_per_token=3",
        "name=math",
        "name=math:",
        "=math:sqrt",
        "name=math:sqrt,bits_per_token=3",
        "name=math:sqrt,decode=math:sqrt,bits_per_image=3",
        "name=math:sqrt,decode=math:sqrt,colour=3",
        "name=math:pi",
        "name=math:nothing",
        "name=no_such_module_anywhere:f",
        "name=.:f",
    ],
)
def test_specs_that_make_no_sense(spec: str) -> None:
    with pytest.raises(ConfigError):
        open_peer(spec, trust=True)


def test_folders_that_are_not_of_diffusers(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json"):
        open_peer(f"x=diffusers:{tmp_path}")
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(WeightsError, match="UNet2DModel"):
        open_peer(f"x=diffusers:{tmp_path}")


@pytest.mark.parametrize("kind", ["VQModel", "AutoencoderKL", "AutoencoderTiny"])
def test_models_of_diffusers(kind: str, tmp_path: Path, samples: Callable[[int], Tensor]) -> None:
    diffusers = pytest.importorskip("diffusers")
    sizes = {"AutoencoderTiny": {}}.get(kind, {"block_out_channels": (32,), "norm_num_groups": 8})
    model = getattr(diffusers, kind)(**sizes).eval()
    model.save_pretrained(tmp_path)
    x = samples(64)
    peer = open_peer(f"x=diffusers:{tmp_path}")
    again = peer.reconstruct(x, SEEDS)
    with torch.no_grad():
        expected = model(x).sample.clamp(-1, 1)
    if kind == "AutoencoderKL":
        expected = model.decode(model.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
    assert torch.allclose(again, expected, atol=2e-3)
    assert peer.bytes_per_image(64, 64) == (64 * 64 if kind == "VQModel" else None)  # 256 codes, no downsampling


def test_ours_behind_the_same_face(model: FlowMo, samples: Callable[[int], Tensor]) -> None:
    x = samples(32)
    peer = FlowMoPeer("ours", model, {"num_steps": 2})
    again = peer.reconstruct(x, SEEDS)
    assert torch.equal(again, model.reconstruct(x, num_steps=2, seed=list(SEEDS)))
    assert torch.allclose(peer.reconstruct(x[5:6], [5]), again[5:6], atol=1e-4)
    assert peer.bytes_per_image(32, 32) == 16 * 18 // 8 == len(model.tokenize(x).to_bytes()[0])
    small = ThumbnailPeer(144)
    assert torch.equal(small.reconstruct(x, SEEDS), thumbnail(x, 1152))
    assert small.bytes_per_image(64, 64) == 144
    assert ThumbnailPeer(300).bytes_per_image(64, 64) == 273  # 11 x 11 pixels
