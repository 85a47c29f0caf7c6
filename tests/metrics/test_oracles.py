"""Our metrics against lpips and torch-fidelity themselves, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import warm_python
from flowmo.data import to_uint8
from flowmo.errors import WeightsError
from flowmo.metrics.distances import frechet, frechet_of_features, inception_score, kid, precision_recall
from flowmo.metrics.features import load_inception
from flowmo.metrics.statistics import Statistics
from flowmo.perceptual import load_lpips

ORACLES = Path(os.environ.get("FLOWMO_ORACLES", Path(sys.prefix) / "oracles"))
Oracle = Callable[..., dict[str, np.ndarray]]


@pytest.fixture
def oracle(tmp_path: Path) -> Oracle:
    """oracle(task, arrays, weights...): what the program of that task makes of the arrays."""
    if not (ORACLES / "torch_fidelity").is_dir() or not (ORACLES / "lpips").is_dir():
        pytest.skip(f"needs lpips and torch-fidelity in {ORACLES} (`make test` installs them where it can)")

    def run(task: str, arrays: dict[str, np.ndarray], *weights: object) -> dict[str, np.ndarray]:
        np.savez(tmp_path / "in.npz", **arrays)
        files = [tmp_path / f"{i}.pt" for i in range(len(weights))]
        for file, content in zip(files, weights, strict=True):
            torch.save(content, file)
        program = [Path(__file__).parent / "oracle_program.py", task, tmp_path / "in.npz", tmp_path / "out.npz", *files]
        environment = warm_python.environment() | {"PYTHONPATH": str(ORACLES), "HOME": str(tmp_path)}
        done = subprocess.run([warm_python.python(), *program], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        with np.load(tmp_path / "out.npz") as found:
            return dict(found)

    return run


def test_distances_equal_torch_fidelity_of_the_same_features(oracle: Oracle) -> None:
    random = np.random.default_rng(0)
    mixing = random.normal(size=(24, 24))
    real = (random.normal(size=(300, 24)) @ mixing).astype(np.float32)
    fake = (random.normal(size=(260, 24)) @ mixing * 0.9 + 0.2).astype(np.float32)
    logits = random.normal(size=(250, 40)).astype(np.float32) * 3
    found = oracle("distances", {"real": real, "fake": fake, "logits": logits})

    np.testing.assert_allclose(Statistics.of(real).covariance, found["covariance"], rtol=1e-9, atol=1e-9)
    expected = found["frechet_inception_distance"]
    assert frechet(Statistics.of(real), Statistics.of(fake)) == pytest.approx(expected, rel=1e-6)
    assert frechet_of_features(real, fake) == pytest.approx(expected, rel=1e-6)
    mean, error = kid(real, fake, subsets=20, subset_size=50, seed=7)
    assert mean == pytest.approx(found["kernel_inception_distance_mean"], rel=1e-4)
    spread = found["kernel_inception_distance_std"]
    assert error == pytest.approx(spread * np.sqrt(50 / (260 - 50)), rel=1e-4)
    precision, recall = precision_recall(real, fake)
    assert (precision, recall) == pytest.approx((float(found["precision"]), float(found["recall"])), abs=1e-6)
    assert 0.2 < recall < precision < 1
    expected_score = float(found["inception_score_mean"]), float(found["inception_score_std"])
    assert inception_score(logits) == pytest.approx(expected_score, rel=1e-4)


def test_inception_equals_torch_fidelity_of_the_same_images(
    oracle: Oracle, samples: Callable[[int], Tensor], tmp_path: Path
) -> None:
    """Enlarging included. sFID has no package of its own, but its features are inside that network."""
    images = to_uint8(samples(72)[:4, :, :, 3:])  # 72 x 69 pixels
    last = 0.05 * torch.randn(1008, 2048)
    torch.save({"fc.weight": last}, tmp_path / "last.pth")
    try:
        network = load_inception(classifier=tmp_path / "last.pth")
    except WeightsError as error:
        pytest.skip(str(error))
    ours = network(images.float() / 127.5 - 1)
    convolutions = [module for module in network.modules() if hasattr(module, "beta")]
    assert len(convolutions) == 94
    found = oracle("inception", {"images": images.numpy()}, ([m.state_dict() for m in convolutions], last))
    assert ours.keys() == found.keys()
    for space, features in ours.items():
        np.testing.assert_allclose(features.numpy(), found[space], rtol=1e-4, atol=2e-5)


def test_lpips_equals_lpips(oracle: Oracle, samples: Callable[[int], Tensor]) -> None:
    images = samples(72)[:, :, :, 3:]
    a, b = images[:4], images[4:]
    ours, weights = {}, []
    for network in ("vgg", "alex"):
        try:
            distance = load_lpips(network)  # type: ignore[arg-type]
        except WeightsError as error:
            pytest.skip(str(error))
        ours[network] = distance(a, b).numpy()
        convolutions = [module for module in distance.stages.modules() if isinstance(module, nn.Conv2d)]
        weights.append([(module.weight, module.bias) for module in convolutions])
    found = oracle("lpips", {"a": a.numpy(), "b": b.numpy()}, *weights)
    for network, values in ours.items():
        np.testing.assert_allclose(values, found[network], rtol=1e-5)
