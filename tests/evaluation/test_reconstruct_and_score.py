"""Reconstructions with their rate and scores, in one call, as a notebook asks for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from flowmo.config import QuantizerConfig
from flowmo.data import to_image, to_tensor
from flowmo.evaluation.reconstruction import reconstruct_and_score, reconstruct_images
from flowmo.metrics.pixels import psnr
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_model_with_tokens() -> None:
    model = FlowMo(tiny()).eval()
    found = reconstruct_and_score(model, IMAGES, None, seed=3)
    assert torch.equal(found.images, model.detokenize(model.tokenize(IMAGES), seed=3))
    assert found.bits == 16 * 18
    assert found.rate() == {"payload_bytes": 36, "file_bytes": 60, "bits_per_pixel": 288 / 1024}
    for one, exact in zip(found.scores, psnr(found.images, IMAGES).tolist(), strict=True):
        assert abs(one.psnr - exact) < 0.1  # scores are of 8 bits
        assert one.lpips is None
        assert one.thumbnail_psnr > 0


def test_a_continuous_latent_has_no_rate() -> None:
    model = FlowMo(replace(tiny(), quantizer=QuantizerConfig(kind="continuous"))).eval()
    found = reconstruct_and_score(model, IMAGES, None, seed=3)
    assert torch.equal(found.images, model.reconstruct(IMAGES, seed=3))
    assert set(found.rate().values()) == {None}
    assert len(found.scores) == 2


def test_pictures_of_files_come_one_by_one(tmp_path: Path) -> None:
    """Each as the model saw it, beside what it made of it, with the bits that were asked for; bad files are told."""
    paths, bad = [tmp_path / f"{i}.png" for i in range(4)], []
    for path, image in zip(paths, [*IMAGES, IMAGES[0]], strict=False):
        to_image(image).save(path)
    paths[1].write_bytes(b"no picture")
    paths[3].write_bytes(b"nor this")
    model = FlowMo(tiny()).eval()
    size, asked = (32, 32), []

    def bits(of: tuple[int, int]) -> None:
        asked.append(of)

    found = list(
        reconstruct_images(model, paths, size, "crop", 1, None, bits, lambda path, error: bad.append(path), seed=3)
    )
    assert [one.index for one in found] == [0, 2]
    assert bad == [paths[1], paths[3]]
    assert asked == [size, size]
    again = reconstruct_and_score(model, to_tensor(Image.open(paths[0]))[None], None, seed=3)
    assert found[0].scores == again.scores[0]
    assert found[0].rate == again.rate()
    assert np.array_equal(np.array(found[0].reconstruction), np.array(to_image(again.images[0])))
    assert np.array_equal(np.array(found[0].image), np.array(Image.open(paths[0])))
