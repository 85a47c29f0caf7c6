"""Pictures of many sizes: where they come from, the step across tile borders, and the file of the tool."""

from __future__ import annotations

import json
import math
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import flowmo
from flowmo import samples, tiles
from flowmo.config import FlowMoConfig, SamplerConfig, TransformConfig, TransformerConfig
from flowmo.data import to_tensor
from flowmo.experiments.sizes import quality, seam_step, tiled_image
from flowmo.fit_transform import default_rates, fit_transform
from flowmo.weights import save_model

ROOT = Path(__file__).parents[2]


def config() -> FlowMoConfig:
    return FlowMoConfig(
        encoder=TransformerConfig(patch_size=8, width=32, depth=1, heads=2),
        decoder=TransformerConfig(patch_size=8, width=32, depth=2, heads=2),
        image_size=64,
        num_tokens=64,
        bits_per_token=24,
        bits_per_group=1,
        sampler=SamplerConfig(num_steps=1, rho=math.inf, guidance_scale=1.0),
        prediction="clean",
        modulation="shared",
        latent_positions="patches",
        transform=TransformConfig(8, default_rates(24), class_bits=2, num_components=48),
    )


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    found = []
    for path in samples.paths():
        with Image.open(path) as image:
            found.append(image.convert("RGB"))
    return found


@pytest.fixture(scope="module")
def model(photographs: list[Image.Image]) -> flowmo.FlowMo:
    """The best closed-form code of the samples, and a transformer that adds more than a little to it."""
    crops = torch.stack([to_tensor(p.resize((128, 128))) for p in photographs])
    parts = crops.unfold(2, 64, 64).unfold(3, 64, 64).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 64, 64)
    found = fit_transform(config(), lambda: parts.split(16))
    nn.init.normal_(found.decoder.readout.weight, std=0.03, generator=torch.Generator().manual_seed(0))
    return found


def test_small_pictures_are_scaled_and_large_ones_are_windows_of_many(photographs: list[Image.Image]) -> None:
    small = tiled_image(photographs, 2, 64, 96)
    assert small.size == (96, 64)
    large = np.asarray(tiled_image(photographs, 3, 512, 512))
    assert large.shape == (512, 512, 3)
    # The window begins 136 pixels into the first of 3 x 3 photographs; the one in the middle is whole.
    middle = np.asarray(photographs[(3 + 4) % len(photographs)])
    assert np.array_equal(large[120:376, 120:376], middle)
    assert np.array_equal(large[:120, :120], np.asarray(photographs[3])[136:, 136:])
    assert 120 % 16 == 8, "no border of patches"


def test_quality_rises_with_the_rate(model: flowmo.FlowMo, photographs: list[Image.Image]) -> None:
    def distance(images: Tensor, reference: Tensor) -> Tensor:
        return (images - reference).abs().flatten(1).mean(1)

    found = quality(model, [tiled_image(photographs, i, 64, 64) for i in range(3)], [6, 24], distance)
    assert found[24]["psnr"] > found[6]["psnr"] + 0.5
    assert found[24]["lpips_alex"] < found[6]["lpips_alex"]


def test_the_measure_sees_a_seam() -> None:
    reference = torch.rand(1, 3, 8 * 48, 8 * 60, generator=torch.Generator().manual_seed(0))
    error = 0.1 * torch.randn(reference.shape, generator=torch.Generator().manual_seed(1))
    border, elsewhere = seam_step(reference + error, reference, 8)
    assert border == pytest.approx(elsewhere, rel=0.05)
    left = {tile.left for tile in tiles.tiles(48, 60)} - {0}
    shifted = reference + error
    for column in left:
        shifted[..., column * 8 :] += 0.2
    border, elsewhere = seam_step(shifted, reference, 8)
    assert border > 1.2 * elsewhere
    with pytest.raises(ValueError, match="one tile"):
        seam_step(reference[..., :64, :64], reference[..., :64, :64], 8)


def test_no_seam_is_seen_of_a_model(model: flowmo.FlowMo, photographs: list[Image.Image]) -> None:
    x = to_tensor(tiled_image(photographs, 0, 8 * 48, 8 * 60))[None]
    with torch.inference_mode():
        border, elsewhere = seam_step(model.detokenize(model.tokenize(x)), x, 8)
    assert border < 1.1 * elsewhere


def test_blending_is_what_hides_the_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a decoder that gives every tile another brightness, as far apart as contrasts in a photograph."""
    rng = torch.Generator().manual_seed(0)
    reference = 0.05 * torch.randn(1, 3, 8 * 48, 8 * 60, generator=rng)
    code = torch.zeros(1, 48 * 60, 1)

    def steps() -> tuple[float, float]:
        levels = iter([0.3, -0.3, 0.2, -0.2] * 10)
        images = tiles.decode_tiled(lambda _, part: 0.5 * part + next(levels), code, reference, 8)
        return seam_step(images, reference, 8)

    border, elsewhere = steps()
    assert border < 1.1 * elsewhere

    def hard(start: int, stop: int, length: int, patch: int, like: Tensor) -> Tensor:
        """Each pixel from the last tile that covers it."""
        return torch.full(((stop - start) * patch,), 10.0 ** (start / 6), dtype=like.dtype)

    monkeypatch.setattr(tiles, "_ramp", hard)
    border, elsewhere = steps()
    assert border > 2 * elsewhere


def test_the_tool_writes_a_file_that_is_rendered(
    model: flowmo.FlowMo,
    lpips: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Memory and time too, of smaller pictures; a second call measures nothing again."""
    pictures = tmp_path / "photos" / "validation"
    (tmp_path / "photos" / "train").mkdir(parents=True)
    pictures.mkdir()
    for path in samples.paths()[:4]:
        for folder in (pictures, tmp_path / "photos" / "train"):
            (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    tool = runpy.run_path(str(ROOT / "tools" / "measure_sizes.py"))
    monkeypatch.setitem(tool["main"].__globals__, "SIZES", ((64, 64), (512, 768)))
    monkeypatch.setitem(tool["main"].__globals__, "LARGE", ((150, 200), (300, 400)))
    monkeypatch.setitem(tool["main"].__globals__, "SEAMS", (8 * 48, 8 * 60))
    file = tmp_path / "start.safetensors"
    save_model(model, file)
    flags = [
        "--model",
        str(file),
        "--name",
        "small",
        "--count",
        "2",
        "--seam-count",
        "1",
        "--bits-per-token",
        "6",
        "24",
    ]
    command = [
        str(tmp_path / "photos"),
        *flags,
        "--originals",
        str(samples.paths()[0]),
        "--out",
        str(tmp_path / "s.json"),
    ]
    assert tool["main"](command) == 0
    first = (tmp_path / "s.json").read_text()
    found = json.loads(first)
    assert found["768 x 512"]["rates"]["6"]["bytes"] == 96 * 64 * 6 // 8
    for row in (found["64 x 64"], found["768 x 512"], found[samples.paths()[0].stem]):
        assert row["rates"]["24"]["psnr"] > row["rates"]["6"]["psnr"]
    assert found["large 400 x 300"]["tokenize"]["peak_mb"] > 50
    assert tool["main"](command) == 0
    assert (tmp_path / "s.json").read_text() == first
    render = runpy.run_path(str(ROOT / "tools" / "render_readme.py"))["sizes_tables"]
    text = render(found)
    assert "| small | 6 bits a token: bytes |" in text
    assert f"| 768 x 512 | 4,608 | {found['768 x 512']['rates']['6']['psnr']:.2f} |" in text
    assert "| 400 x 300 |" in text
    small = replace(config(), transform=None, latent_positions="diagonal")
    save_model(flowmo.FlowMo(small), tmp_path / "plain.safetensors")
    assert tool["main"]([str(tmp_path / "photos"), "--model", str(tmp_path / "plain.safetensors")]) == 2
    assert "codes one size" in capsys.readouterr().err
