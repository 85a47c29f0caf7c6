"""A whole comparison as a notebook calls it: one request, one folder, and the same again from what was kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from codec_support import alex_or_skip

from flowmo import samples
from flowmo.comparison.codecs import get_codec
from flowmo.comparison.session import Request, compare_all
from flowmo.data import to_float
from flowmo.errors import ConfigError, ImageError
from flowmo.evaluation.results import read_result
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    """Two photographs and a file that is none, by a model of random weights and JPEG."""
    alex_or_skip()
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for path in samples.paths()[:2]:
        (pictures / path.name).write_bytes(path.read_bytes())
    (pictures / "zero.png").write_bytes(b"no picture")
    model = FlowMo(tiny()).eval()
    jpeg = [get_codec("jpeg")]
    return Request(str(pictures), [("tiny", model)], codecs=jpeg, bytes=(400, 300), counted=("payload",), metrics=())


def test_a_comparison_and_the_same_again(request_: Request, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    bad: list[str] = []
    coded: list[tuple[int, int]] = []

    def skip(name: str, error: ImageError) -> None:
        bad.append(name)

    found, files = compare_all(request_, tmp_path / "out", skip, on_coded=lambda *how: coded.append(how))
    assert bad == ["zero.png"]
    assert [(row.name, row.target) for row in found.rows] == [
        ("tiny", None),
        *(("thumbnail", target) for target in (300, 400)),
        *(("jpeg", target) for target in (300, 400)),
    ]
    assert coded == [(1, 2), (2, 2)]
    assert found.images.images.shape == (2, 3, 32, 32)
    ours = request_.models[0][1].reconstruct(to_float(found.images.images), seed=[0, 1])
    assert found.rows[0].payload_bytes == 36
    exact = -10 * torch.log10((ours.clamp(-1, 1) - to_float(found.images.images)).div(2).square().flatten(1).mean(1))
    assert found.rows[0].metrics["psnr"] == pytest.approx(float(exact.mean()), abs=0.05)  # measured in 8 bits
    assert {path.name for path in (tmp_path / "out").iterdir()} >= set(files)
    result = read_result(tmp_path / "out" / "comparison.json")
    assert (result.data.count, result.data.description) == (2, "pictures")

    said: list[str] = []
    again, _ = compare_all(request_, tmp_path / "out", skip, said.append)
    assert again.rows == found.rows
    assert said[0].startswith("tiny: PSNR dB")


def test_what_does_not_compare_is_refused_before_any_work(request_: Request, tmp_path: Path) -> None:
    def never(name: str, error: ImageError) -> None:
        raise AssertionError(name)

    other = FlowMo(replace(tiny(), image_size=64, num_tokens=64)).eval()
    for wrong, reason in (
        (replace(request_, models=[*request_.models, ("other", other)]), "say the size of the pictures: --size"),
        (replace(request_, models=[]), "there is no model"),
        (replace(request_, models=[], size=(32, 32), bytes=None), "say them: --bytes"),
    ):
        with pytest.raises(ConfigError, match=reason):
            compare_all(wrong, tmp_path / "out", never)
    assert not (tmp_path / "out").exists()
