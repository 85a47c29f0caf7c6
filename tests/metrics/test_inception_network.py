"""The Inception network of FID: what goes in, what comes out, and files that are not what they should be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flowmo.errors import ConfigError, ImageError, WeightsError
from flowmo.metrics.features import load_classifier_features, load_inception
from flowmo.metrics.inception import Inception, _resize_tensorflow, read_classifier
from flowmo.metrics.networks import load_networks
from flowmo.metrics.table import check_metrics, families


@pytest.fixture(scope="module")
def inception() -> Inception:
    try:
        return load_inception()
    except WeightsError as error:
        pytest.skip(str(error))


def test_a_row_sees_its_own_image_only(inception: Inception, samples: Callable[[int], Tensor]) -> None:
    """Whatever batch it stands in (1e-5 of the largest feature, for other sums in another order)."""
    images = samples(48)[:3]
    together = inception(images)
    assert {name: value.shape for name, value in together.items()} == {"pool": (3, 2048), "spatial": (3, 2023)}
    for name, features in together.items():
        alone = torch.cat([inception(image[None])[name] for image in images])
        assert (features - alone).abs().max() < 1e-5 * features.abs().max()
        assert (features[0] - features[1]).abs().max() > 0.05 * features.abs().max()


def test_both_ways_of_enlarging_differ(inception: Inception, samples: Callable[[int], Tensor]) -> None:
    image = samples(48)[:1]
    published = load_inception(prepare="pytorch_fid")
    assert published.name != inception.name
    assert not torch.allclose(published(image)["pool"], inception(image)["pool"], atol=1e-2)
    with pytest.raises(ConfigError, match="tensorflow, pytorch_fid"):
        Inception("other")  # type: ignore[arg-type]


def test_tensorflows_bilinear_grid() -> None:
    """A ramp stays a ramp of the same slope, from the first pixel on, and ends in the last one."""
    ramp = torch.arange(46.0).expand(1, 1, 46, 46)
    row = _resize_tensorflow(ramp)[0, 0, 0]
    place = torch.arange(299) * (46 / 299)
    torch.testing.assert_close(row, place.clamp_max(45), rtol=0, atol=1e-4)
    same = torch.rand(1, 3, 299, 299)
    torch.testing.assert_close(_resize_tensorflow(same), same)
    centred = F.interpolate(ramp, (299, 299), mode="bilinear", align_corners=False)[0, 0, 0]
    assert (centred - row).abs().max() > 0.4


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64)])
def test_other_shapes_are_refused(inception: Inception, shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="B, 3, H, W"):
        inception(torch.zeros(shape))


def test_the_last_layer_is_the_users_own(tmp_path: Path) -> None:
    weight = torch.randn(7, 2048)
    torch.save({"fc.weight": weight}, tmp_path / "whole.pth")
    assert torch.equal(read_classifier(tmp_path / "whole.pth"), weight)
    for content, said in (({"other": weight}, "fc.weight"), ({"fc.weight": weight[:, 1:]}, "2048")):
        torch.save(content, tmp_path / "bad.pth")
        with pytest.raises(WeightsError, match=said):
            read_classifier(tmp_path / "bad.pth")
    (tmp_path / "bad.pth").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    with pytest.raises(WeightsError, match="safely"):
        read_classifier(tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="no file"):
        read_classifier(tmp_path / "none.pth")


def test_a_file_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inception.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(WeightsError, match=r"inception\.pt"):
        load_inception(tmp_path / "inception.pt")


def test_the_classifiers_space_has_a_name_of_its_own(samples: Callable[[int], Tensor]) -> None:
    try:
        network = load_classifier_features()
    except WeightsError as error:
        pytest.skip(str(error))
    features = network(samples(48)[:2])
    assert {name: value.shape for name, value in features.items()} == {"pool": (2, 1280)}
    assert np.isfinite(features["pool"].numpy()).all()
    assert "FID" not in network.name.upper()
    assert "fd_efflite0" in families()


def test_few_pictures_have_kid_beside_rfid() -> None:
    assert "kid" in check_metrics(["rfid"], 9_999)
    assert "kid" not in check_metrics(["rfid"], 10_000)


def test_small_pictures_have_no_ssim() -> None:
    networks = load_networks(("psnr", "ssim"), "tensorflow", 4, torch.device("cpu"))
    assert networks.metrics == ("psnr",)
    assert "pixels" in networks.left_out["ssim"]
