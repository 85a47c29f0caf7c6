"""ResNet-50 and the distances of Stage 1B by name (A.2; D2): files in torchvision's format, and what they compute."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from flowmo.errors import ConfigError, ImageError, WeightsError
from flowmo.perceptual import LPIPS, LogitDistance, ResNet50, load_distance, load_resnet50, resnet
from flowmo.stages import SampleLossConfig


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as torchvision stores one, with random weights: its real ones cannot be had everywhere."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in ResNet50().state_dict().items()}
    tensors = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(7)
        elif len(shape) > 1:
            tensors[name] = torch.randn(shape, generator=generator) * (2 / shape[1:].numel()) ** 0.5
        else:
            tensors[name] = 0.5 + torch.rand(shape, generator=generator)
    path = tmp_path_factory.mktemp("resnet") / "resnet50.pth"
    torch.save(tensors, path)
    return path


@pytest.fixture(scope="session")
def network(file: Path) -> ResNet50:
    return load_resnet50(file, 64)


def by_hand(w: dict[str, Tensor], images: Tensor, side: int) -> Tensor:
    """The network out of its tensors alone, block by block."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], stride=stride, padding=w[f"{name}.weight"].shape[-1] // 2)

    def norm(x: Tensor, name: str) -> Tensor:
        m, v, a, b = (w[f"{name}.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias"))
        return (x - m) / (v + 1e-5).sqrt() * a + b

    x = F.interpolate((images + 1) / 2, (side, side), mode="bilinear", antialias=True)
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    x = F.max_pool2d(norm(conv(x, "conv1", 2), "bn1").relu(), 3, 2, 1)
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for i in range(blocks):
            at, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            y = norm(conv(x, f"{at}.conv1"), f"{at}.bn1").relu()
            y = norm(conv(y, f"{at}.conv2", stride), f"{at}.bn2").relu()
            y = norm(conv(y, f"{at}.conv3"), f"{at}.bn3")
            short = norm(conv(x, f"{at}.downsample.0", stride), f"{at}.downsample.1") if i == 0 else x
            x = (y + short).relu()
    return x.mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]


def test_it_is_resnet50(file: Path, network: ResNet50, samples) -> None:
    assert sum(p.numel() for p in network.parameters()) == 25_557_032
    assert len(network.state_dict()) == 320
    assert network.get_parameter("layer4.2.conv3.weight").shape == (2048, 512, 1, 1)
    images = samples(96)[:2]
    logits = network.logits(images)
    assert logits.shape == (2, 1000)
    expected = by_hand(torch.load(file), images, 64)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert not network.train().training
    assert not any(p.requires_grad for p in network.parameters())
    with pytest.raises(ImageError):
        network.logits(images[0])


@pytest.mark.parametrize("change", ["missing", "foreign", "shape", "not a dict", "not a file of weights", "code"])
def test_other_files_are_refused(change: str, file: Path, tmp_path: Path) -> None:
    tensors = torch.load(file)
    path = tmp_path / "other.pth"
    if change == "missing":
        del tensors["layer3.4.bn2.weight"]
    elif change == "foreign":
        tensors["layer5.0.conv1.weight"] = torch.zeros(1)
    elif change == "shape":
        tensors["fc.weight"] = tensors["fc.weight"][:10]
    torch.save([1.0] if change == "not a dict" else Path if change == "code" else tensors, path)
    if change == "not a file of weights":
        path.write_bytes(b"hello")
    with pytest.raises(WeightsError, match=r"other\.pth (does not hold a ResNet-50|is not a file of weights)") as error:
        load_resnet50(path)
    if change in ("missing", "foreign", "shape"):
        name = {"missing": "layer3.4.bn2.weight", "foreign": "layer5.0.conv1.weight", "shape": "fc.weight"}[change]
        assert f"1 of its tensors are missing, foreign or of another shape, for example {name}" in str(error.value)


def test_older_files_and_safetensors_will_do(file: Path, network: ResNet50, samples, tmp_path: Path) -> None:
    tensors = {name: t for name, t in torch.load(file).items() if "num_batches" not in name}
    safetensors.torch.save_file(tensors, tmp_path / "resnet50.safetensors")
    again = load_resnet50(tmp_path / "resnet50.safetensors", 64)
    assert torch.equal(again.logits(samples(32)[:1]), network.logits(samples(32)[:1]))


def test_a_download_is_known_by_its_checksum(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a server, under the published name; the published checksum is that of the name."""
    assert resnet.SOURCE.file == f"resnet50-{resnet.SOURCE.sha256[:8]}.pth"
    monkeypatch.setenv("FLOWMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FLOWMO_WEIGHTS_URL", raising=False)
    with pytest.raises(WeightsError, match=r"ResNet-50 .* are missing.* put resnet50-0676ba61\.pth into"):
        load_resnet50()
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / resnet.SOURCE.file).symlink_to(file)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setenv("FLOWMO_WEIGHTS_URL", f"http://127.0.0.1:{server.server_address[1]}/")
        with pytest.raises(WeightsError, match="is damaged or another file"):
            load_resnet50()
        assert not list((tmp_path / "cache").iterdir())
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        monkeypatch.setattr(resnet, "SOURCE", replace(resnet.SOURCE, sha256=digest, size=file.stat().st_size))
        assert isinstance(load_resnet50(), ResNet50)
    finally:
        server.shutdown()
        server.server_close()
    assert isinstance(load_resnet50(), ResNet50)  # from the cache
    (tmp_path / "cache" / resnet.SOURCE.file).write_bytes(b"cut")
    with pytest.raises(WeightsError, match="is damaged or another file"):
        load_resnet50()


def test_a_logit_distance(network: ResNet50, samples) -> None:
    """The mean squared difference of logits; 0 for equal images, a gradient for the first alone, nothing clipped."""
    distance = LogitDistance(network)
    images, other = samples(64)[:2], samples(64)[2:4]
    assert torch.equal(distance(images, images), torch.zeros(2))
    a, b = images.clone().requires_grad_(), other.clone().requires_grad_()
    value = distance(a, b)
    expected = (network.logits(images) - network.logits(other)).square().mean(1)
    torch.testing.assert_close(value.detach(), expected)
    value.sum().backward()
    assert a.grad is not None
    assert a.grad.abs().sum() > 0
    assert b.grad is None
    assert not torch.equal(distance(3 * images, images), distance((3 * images).clamp(-1, 1), images))


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_lite0", "lpips_vgg", "lpips_alex"])
def test_distances_by_name(name, file: Path, samples) -> None:
    try:
        network, about = load_distance(name, file if name == "resnet50" else None, 64)
    except WeightsError as error:
        pytest.skip(str(error))
    assert about["name"] == name
    assert about.get("side") == (None if isinstance(network, LPIPS) else 64)
    if name == "resnet50":
        assert about["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    images = samples(32)[:2]
    blurred = F.avg_pool2d(images, 3, 1, 1)
    assert network(images, images).abs().max() < 1e-6
    assert (network(blurred, images) > network(0.9 * images + 0.1 * blurred, images)).all()


def test_lpips_beside_a_classifier(samples) -> None:
    try:
        alone, lpips = (load_distance(name, None, 64)[0] for name in ("efficientnet_lite0", "lpips_vgg"))
        both, about = load_distance("efficientnet_lite0", None, 64, lpips_weight=6.0)
    except WeightsError as error:
        pytest.skip(str(error))
    assert about["lpips_weight"] == 6.0
    assert about["sha256"] == load_distance("efficientnet_lite0", None, 64)[1]["sha256"]
    images = samples(32)[:2]
    blurred = F.avg_pool2d(images, 3, 1, 1).requires_grad_()
    value = both(blurred, images)
    torch.testing.assert_close(value, alone(blurred, images) + 6 * lpips(blurred, images))
    value.sum().backward()
    assert blurred.grad is not None
    assert blurred.grad.isfinite().all()
    with pytest.raises(ConfigError, match=r"lpips_weight must be at least 0, got -1"):
        SampleLossConfig(lpips_weight=-1.0)
