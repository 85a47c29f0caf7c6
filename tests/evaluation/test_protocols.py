"""Both protocols against the plainest possible loop over pictures, measured by scikit-image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flowmo.config import SamplerConfig
from flowmo.data import ImageSource
from flowmo.errors import ConfigError
from flowmo.evaluation.evaluate import Settings
from flowmo.evaluation.protocols import PROTOCOLS, PUBLISHED, STANDARD, Noise, get_protocol
from flowmo.evaluation.session import Session, evaluate, prepare
from flowmo.evaluation.summary import read_table
from flowmo.metrics.networks import load_networks
from flowmo.tokenizer import FlowMo

SAMPLER = SamplerConfig(num_steps=3, rho=2.0, guidance_scale=1.5)
METRICS = ("psnr", "ssim", "lpips_alex")


def measured(model: FlowMo, source: ImageSource, protocol, folder: Path, batch_size: int = 16, seed: int = 5):
    """The metrics, and the columns of the table of pictures."""
    networks = load_networks(METRICS, protocol.inception, 32, torch.device("cpu"))
    job = prepare(model, "m", Settings(protocol, SAMPLER, seed, batch_size), networks)
    result = evaluate(model, Session(folder, source, "samples"), job)
    assert result is not None
    return result.content["metrics"], read_table(folder / f"m-{protocol.name}.csv")[1]


def sample(model: FlowMo, images: Tensor, noise: Tensor) -> Tensor:
    code = model.quantize(model.encode(images)).code
    s = SAMPLER
    with torch.no_grad():
        return model.sample(code, noise, s).clamp(-1, 1)


def test_published_is_the_released_loop(
    model: FlowMo, pictures: ImageSource, samples: Callable[[int], Tensor], tmp_path: Path
) -> None:
    """E1 to E4 and E6 written out: batches of five, one stream of noise, truncated pixels, PSNR of the whole batch."""
    metrics = pytest.importorskip("skimage.metrics")
    images = samples(32)
    networks = load_networks(METRICS, "pytorch_fid", 32, torch.device("cpu"))
    torch.manual_seed(5)
    psnr, ssim, lpips = [], [], []
    for batch in images.split(5):
        again = sample(model, batch, torch.randn(batch.shape))
        theirs, ours = (((x + 1) / 2 * 255).to(torch.uint8).permute(0, 2, 3, 1).numpy() / 255 for x in (batch, again))
        psnr.append(metrics.peak_signal_noise_ratio(theirs, ours, data_range=1))
        ssim += [
            metrics.structural_similarity(a, b, data_range=1, channel_axis=-1)
            for a, b in zip(theirs, ours, strict=True)
        ]
        if networks.lpips:
            lpips += networks.lpips["alex"](again, batch).tolist()
    found, table = measured(model, pictures, PUBLISHED, tmp_path)
    assert found["psnr"] == pytest.approx(np.mean(psnr), abs=1e-3)
    assert found["ssim"] == pytest.approx(np.mean(ssim), abs=1e-4)
    if networks.lpips:
        assert found["lpips_alex"] == pytest.approx(np.mean(lpips), abs=1e-5)
    assert found["psnr_each"] == pytest.approx(table["psnr"].mean())
    assert found["psnr"] < found["psnr_each"]


def test_standard_is_each_picture_by_itself_as_saved(
    model: FlowMo, pictures: ImageSource, samples: Callable[[int], Tensor], tmp_path: Path
) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    images = samples(32)
    networks = load_networks(METRICS, "tensorflow", 32, torch.device("cpu"))
    found, table = measured(model, pictures, STANDARD, tmp_path)
    for place, image in enumerate(images):
        again = model.reconstruct(
            image[None],
            seed=5 + place,
            num_steps=SAMPLER.num_steps,
            rho=SAMPLER.rho,
            guidance_scale=SAMPLER.guidance_scale,
            guidance_interval=SAMPLER.guidance_interval,
        )
        saved = ((again + 1) * 127.5).round().to(torch.uint8)
        a, b = (((x + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy() for x in (image, again[0]))
        assert table["psnr"][place] == pytest.approx(metrics.peak_signal_noise_ratio(a, b), abs=1e-3)
        assert table["ssim"][place] == pytest.approx(metrics.structural_similarity(a, b, channel_axis=-1), abs=1e-4)
        if networks.lpips:
            expected = float(networks.lpips["alex"](saved / 127.5 - 1, image[None]))
            assert table["lpips_alex"][place] == pytest.approx(expected, abs=1e-5)
    assert found["psnr"] == pytest.approx(table["psnr"].mean())
    assert "psnr_each" not in found


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_the_batch_size_changes_nothing(model: FlowMo, pictures: ImageSource, tmp_path: Path, protocol) -> None:
    one = measured(model, pictures, protocol, tmp_path / "1", 1)
    all_at_once = measured(model, pictures, protocol, tmp_path / "16", 16)
    for name, value in one[0].items():
        assert all_at_once[0][name] == pytest.approx(value, abs=1e-3 if name.startswith("psnr") else 1e-5), name


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_the_seed_changes_the_pictures(model: FlowMo, pictures: ImageSource, tmp_path: Path, protocol) -> None:
    a = measured(model, pictures, protocol, tmp_path / "a", seed=1)[1]["psnr"]
    b = measured(model, pictures, protocol, tmp_path / "b", seed=2)[1]["psnr"]
    assert (a != b).all()


def test_noise_of_published_is_one_stream() -> None:
    """Eight pictures: five and three. In any order of asking, and with pictures left out, each keeps its own noise."""
    torch.manual_seed(7)
    expected = torch.cat([torch.randn(5, 3, 4, 4), torch.randn(3, 3, 4, 4)])
    noise = Noise(PUBLISHED, 7, 8, (3, 4, 4))
    assert torch.equal(noise.of(range(8)), expected)
    assert torch.equal(noise.of([6, 1, 4]), expected[[6, 1, 4]])
    assert torch.equal(Noise(PUBLISHED, 7, 8, (3, 4, 4)).of([7, 7]), expected[[7, 7]])
    assert noise.of([]).shape == (0, 3, 4, 4)


def test_noise_of_standard_is_of_the_picture_alone() -> None:
    few, many = Noise(STANDARD, 7, 8, (3, 4, 4)), Noise(STANDARD, 7, 50_000, (3, 4, 4))
    assert torch.equal(few.of([2, 5]), many.of([5, 2]).flip(0))
    assert torch.equal(few.of([2]), torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(9)))


def test_truncated_and_rounded() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    images = levels.float() / 127.5 - 1
    assert torch.equal(STANDARD.to_uint8(images), levels)
    short = levels.int() - PUBLISHED.to_uint8(images).int()
    assert short.sum() == 63  # as documented
    assert set(short.tolist()) == {0, 1}
    between = (levels[:-1].float() + 0.9) / 127.5 - 1
    assert torch.equal(PUBLISHED.to_uint8(between), levels[:-1])
    assert torch.equal(STANDARD.to_uint8(between), levels[1:])
    beyond = torch.tensor([-1.7, 1.7])
    assert PUBLISHED.to_uint8(beyond).tolist() == STANDARD.to_uint8(beyond).tolist() == [0, 255]


def test_networks_see_floats_or_what_is_saved(samples: Callable[[int], Tensor]) -> None:
    images = (samples(32) * 0.97).clamp(-1, 1)
    assert PUBLISHED.for_networks(images) is images
    saved = STANDARD.for_networks(images)
    assert torch.equal(saved, STANDARD.to_uint8(images) / 127.5 - 1)
    assert torch.equal(STANDARD.for_networks(saved), saved)  # originals are of 8 bits and come through unchanged


def test_pooled_psnr() -> None:
    """Errors of 1 and of 100 squared levels: pooled they are 50.5; with a hole in the data the groups stay."""
    assert STANDARD.psnr([1.0, 100.0], [0, 1]) == pytest.approx(20 * np.log10(255) - 10)
    assert PUBLISHED.psnr([1.0, 100.0], [0, 4]) == pytest.approx(20 * np.log10(255) - 10 * np.log10(50.5))
    assert PUBLISHED.psnr([1.0, 100.0], [4, 5]) == STANDARD.psnr([1.0, 100.0], [4, 5])
    assert PUBLISHED.psnr([0.0], [0]) == pytest.approx(148, abs=0.2)


def test_protocols_by_name() -> None:
    assert get_protocol("published") is PUBLISHED
    with pytest.raises(ConfigError, match="choose from standard, published"):
        get_protocol("publised")
