"""Fixtures shared by all tests: where the photographs and the golden vectors lie, when they are there at all."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test waits for the network

LONG = (
    "runs/",
    "training/",
    "coding/",
    "experiments/test_ablations",
    "profiling/",
    "comparison/test_peers_golden",
    "cli/",
)
"""Where the tests are that take long."""

SHARED = Path(os.environ.get("FLOWMO_SHARED", Path(__file__).parents[2] / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that of several processes none is left with one when the others are done."""

    def place(item: pytest.Item) -> int:
        return next((k for k, long in enumerate(LONG) if f"/tests/{long}" in item.path.as_posix()), len(LONG))

    items.sort(key=place)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the project with data/ and golden/; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the photographs and golden vectors at {SHARED} (or FLOWMO_SHARED)")
    return SHARED


@pytest.fixture
def lpips() -> None:
    """Skips where the weights of LPIPS are not installed."""
    from flowmo.errors import WeightsError
    from flowmo.perceptual import load_lpips

    try:
        load_lpips("alex")
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def samples() -> Callable[[int], Tensor]:
    """samples(size): the eight packaged pictures, 8 3 size size in [-1, 1]; they need nothing beside the project."""
    from flowmo import samples
    from flowmo.data import center_crop, open_image, shorter_side_to, to_tensor

    def load(size: int) -> Tensor:
        pictures = [shorter_side_to(open_image(path).image, size) for path in samples.paths()]
        return torch.stack([to_tensor(center_crop(picture, size)) for picture in pictures])

    return load


@pytest.fixture(scope="session")
def learned(samples: Callable[[int], Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small model that was trained on the packaged pictures at all noise levels, for some seconds.

    What holds only of a trained model is tested on it: its samples are those pictures, and depend on code and noise.
    """
    from dataclasses import replace
    from types import SimpleNamespace

    from flowmo.config import SamplerConfig
    from flowmo.presets import tiny
    from flowmo.stages.mode_matching import LossWeights, ModeMatching, ModeMatchingConfig
    from flowmo.tokenizer import FlowMo
    from flowmo.weights import save_model

    path, pictures, steps = tmp_path_factory.mktemp("learned") / "learned.safetensors", samples(32), 300
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sampler = SamplerConfig(2, 1.0, 1.25, (0.1, 0.9))
        model = FlowMo(replace(tiny(), prediction="clean", sampler=sampler)).train()
    stage = ModeMatching(model, ModeMatchingConfig(losses=LossWeights(perceptual=0)))
    batch = SimpleNamespace(images=torch.cat([pictures, pictures.flip(3)]))
    optimizer, generator = torch.optim.Adam(model.parameters()), torch.Generator().manual_seed(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, step / 20) * (1 - step / steps)
        optimizer.zero_grad()
        stage(batch, generator, step).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    save_model(model.eval(), path, about={"images": 7})
    return path


@pytest.fixture(scope="session")
def photographs(shared: Path) -> Callable[[str, int], Tensor]:
    """photographs(split, count): 32-pixel versions of real photographs, count 3 32 32 in [-1, 1]."""
    from flowmo.data import open_images, shorter_side_to, to_tensor

    @functools.cache
    def read(split: str, count: int) -> Tensor:
        source = open_images(shared / "data" / "tiny64", split=split)
        return torch.stack([to_tensor(shorter_side_to(source[i], 32)) for i in range(count)])

    return lambda split, count: read(split, count).clone()


@pytest.fixture(scope="session")
def lively() -> Callable[[nn.Module], nn.Module]:
    """lively(model): the model with noise on every weight, so that no gate is zero and nothing is trivially equal."""

    def disturb(model: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        return model.eval()

    return disturb


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many of the arrays of the official model were compared, whatever the order or number of processes."""

    def count(outcome: str) -> int:
        reports = terminalreporter.stats.get(outcome, [])
        return sum("test_official_vectors.py::test_array[" in report.nodeid for report in reports)

    passed, other = count("passed"), count("failed") + count("error") + count("skipped")
    if passed + other:
        terminalreporter.write_line(f"golden arrays checked: {passed} of {passed + other}")
