"""Other tokenizers compute what their authors' own networks compute (vectors beside the project)."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from flowmo.comparison.peers import PeerNetwork, build_peer
from flowmo.comparison.peers.cosmos import Cosmos, haar, inverse_haar
from flowmo.comparison.peers.titok import TiTok

NAMES = {
    "llamagen_vq16": "llamagen-ds16",
    "llamagen_vq8": "llamagen-ds8",
    "open_magvit2_16": "open-magvit2",
    "maskbit_18": "maskbit-18",
    "cosmos_di8x8": "cosmos-di8",
    "titok_s128": "titok-s128",
    "titok_sl256_vq8k": "titok-sl256",
}


class Golden(NamedTuple):
    facts: dict[str, Any]
    arrays: dict[str, Tensor]
    network: PeerNetwork


def fill(facts: dict[str, Any]) -> dict[str, Tensor]:
    state = {}
    for key, entry in facts["state_dict"].items():
        shape = entry["shape"]
        rule = entry["rule"]
        if rule in ("left", "untouched"):
            state[key] = torch.zeros(shape)
            continue
        a = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
        scaled = {
            "matrix": lambda a: a / np.sqrt(np.prod(a.shape[1:])),
            "table": lambda a: 0.5 * a,
            "embedding": lambda a: a,
            "norm": lambda a: 1 + 0.1 * a,
            "bias": lambda a: 0.1 * a,
        }[rule](a)
        state[key] = torch.from_numpy(scaled.astype(np.float32))
    return state


def golden(shared: Path, file: str) -> Golden:
    folder = shared / "golden" / "peers"
    if not folder.is_dir():
        pytest.skip(f"needs the vectors at {folder}")
    facts = json.loads((folder / f"{file}.json").read_text())
    arrays = {key: torch.from_numpy(value) for key, value in np.load(folder / f"{file}.npz").items()}
    return Golden(facts, arrays, build_peer(NAMES[file], fill(facts)))


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Relative to the size of the expected numbers."""
    error = float((found - expected).norm() / expected.norm())
    assert found.shape == expected.shape
    assert error < tolerance, error


@torch.no_grad()
@pytest.mark.parametrize("file", ["llamagen_vq16", "llamagen_vq8", "open_magvit2_16"])
def test_llamagen_and_open_magvit2(shared: Path, file: str) -> None:
    _, arrays, network = golden(shared, file)
    latent = "quant_conv_out" if "llamagen" in file else "encoder_out"
    for image in ("sq", "rect", "faint"):
        found = network.latent(arrays[f"{image}/input"])
        close(found, arrays[f"{image}/{latent}"])
        indices = network.indices(found)
        assert indices.flatten().equal(arrays[f"{image}/indices"])
        close(network.codes(indices), arrays[f"{image}/codes_from_indices"])
        close(network.pixels(network.codes(indices)), arrays[f"{image}/decoded_from_indices"])
    close(network.pixels(arrays["sq/faint_latent"]), arrays["sq/decoded_from_faint_latent"])


@torch.no_grad()
def test_maskbit(shared: Path) -> None:
    _, arrays, network = golden(shared, "maskbit_18")
    latent = network.latent(arrays["input"])
    close(latent, arrays["z_before_quantization"])
    assert network.indices(latent).equal(arrays["indices"].long())
    close(network.codes(arrays["indices"].long()), arrays["z_quantized"])
    close(network.pixels(arrays["z_quantized"]), arrays["pixels"])
    close(network.pixels(network.codes(arrays["probe_indices"].long())), arrays["probe_pixels"])
    close(network.tokenize(2 * arrays["input"] - 1).float(), arrays["indices"].float(), 1e-9)


@torch.no_grad()
def test_cosmos(shared: Path) -> None:
    _, arrays, network = golden(shared, "cosmos_di8x8")
    assert isinstance(network, Cosmos)
    patches = haar(haar(arrays["input"]))
    close(patches, arrays["patcher_output"], 1e-6)
    close(inverse_haar(inverse_haar(patches)), arrays["input"], 1e-6)
    latent = network.latent(arrays["input"])
    close(latent, arrays["z_before_quantization"])
    close(network.bounded(latent), arrays["z_bounded"])
    assert network.indices(latent).equal(arrays["indices"].long())
    close(network.codes(arrays["indices"].long()), arrays["codes"], 1e-7)
    close(network.codes(arrays["probe_indices"].long()), arrays["probe_codes"], 1e-7)
    close(network.pixels(arrays["codes"]), arrays["pixels"])


@torch.no_grad()
def test_titok(shared: Path) -> None:
    _, arrays, network = golden(shared, "titok_s128")
    assert isinstance(network, TiTok)
    image = torch.from_numpy(np.random.RandomState(0).uniform(0, 1, (1, 3, 256, 256)).astype(np.float32))
    close(image[:, :, :64, :64], arrays["input_corner"], 1e-9)
    latent = network.latent(image)
    close(latent, arrays["z_before_quantization"])
    assert network.indices(latent).equal(arrays["indices"].long())
    close(network.codes(arrays["indices"].long()), arrays["z_quantized"])
    logits = network.decoder(arrays["z_quantized"])
    close(logits, arrays["decoder_logits"])
    soft = network.soft_rows(logits)
    close(soft, arrays["soft_codebook"])
    pixels = network.pixel_decoder(soft)
    close(pixels[:, :, :64, :64], arrays["pixels_corner"])
    close(torch.nn.functional.avg_pool2d(pixels, 8), arrays["pixels_mean8x8"])


@torch.no_grad()
def test_titok_that_gives_pixels(shared: Path) -> None:
    """The larger one, without a decoder of pixels; only its encoder and the way back from the codes."""
    _, arrays, network = golden(shared, "titok_sl256_vq8k")
    image = torch.from_numpy(np.random.RandomState(0).uniform(0, 1, (1, 3, 256, 256)).astype(np.float32))
    latent = network.latent(image)
    close(latent, arrays["z_before_quantization"])
    assert network.indices(latent).equal(arrays["indices"].long())
    pixels = network.pixels(network.codes(arrays["indices"].long()))
    close(pixels[:, :, :64, :64], arrays["pixels_corner"])
    close(torch.nn.functional.avg_pool2d(pixels, 8), arrays["pixels_mean8x8"])
