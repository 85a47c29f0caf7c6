"""Weights in several small files: the same model, and a clear word when one is missing, damaged or of another model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flowmo.cli.main import main
from flowmo.config import SamplerConfig
from flowmo.errors import WeightsError
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.weights import load, load_model, read_about, save_model_shards, store_sampler
from flowmo.weights.shards import INDEX

MOST = 500_000


@pytest.fixture(scope="session")
def model(lively: Callable[[nn.Module], nn.Module]) -> FlowMo:
    torch.manual_seed(0)
    return lively(FlowMo(tiny()))  # type: ignore[return-value]


@pytest.fixture
def folder(model: FlowMo, tmp_path: Path) -> Path:
    index = save_model_shards(model, tmp_path / "shards", about={"images": 12}, most_bytes=MOST)
    assert index == tmp_path / "shards" / INDEX
    return index.parent


def shards_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_the_same_model_comes_back(model: FlowMo, folder: Path, samples: Callable[[int], Tensor]) -> None:
    files = shards_of(folder)
    assert len(files) > 2
    assert max(path.stat().st_size for path in files) <= MOST
    again = load(folder)
    assert again.config == model.config
    assert not again.training
    for name, parameter in model.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter.half().float()), name
    assert read_about(folder / INDEX) == {"images": 12}
    assert again.fingerprint() == model.fingerprint()
    again.reconstruct(samples(32)[:1], num_steps=1)


def test_a_later_save_replaces_all_of_an_earlier_one(model: FlowMo, folder: Path) -> None:
    save_model_shards(model, folder, most_bytes=10 * MOST)
    assert [path.name for path in shards_of(folder)] == ["model-00001-of-00001.safetensors"]
    load(folder)


def test_one_file_of_several_with_a_sampler_of_its_own(model: FlowMo, folder: Path, tmp_path: Path) -> None:
    sampler = SamplerConfig(3, 1.0, 1.0)
    store_sampler(folder / INDEX, tmp_path / "one.safetensors", sampler)
    one, several = load_model(tmp_path / "one.safetensors"), load(folder)
    assert one.config.sampler == sampler
    assert read_about(tmp_path / "one.safetensors") == {"images": 12}
    assert all(torch.equal(one.get_parameter(name), p) for name, p in several.named_parameters())


def test_the_commands_take_the_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["about"] == {"images": 12}


def test_what_is_missing_or_mixed_is_named(model: FlowMo, folder: Path, tmp_path: Path) -> None:
    def refused(change: Callable[[Path], object], said: str) -> None:
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(folder, tmp_path / "bad")
        change(tmp_path / "bad")
        with pytest.raises(WeightsError, match=said):
            load(tmp_path / "bad")

    def index_with(**changes: object) -> Callable[[Path], object]:
        content = json.loads((folder / INDEX).read_text()) | changes
        return lambda bad: (bad / INDEX).write_text(json.dumps(content))

    def of_another(bad: Path) -> None:
        torch.manual_seed(1)
        save_model_shards(FlowMo(tiny()), tmp_path / "other", most_bytes=MOST)
        shutil.copy(shards_of(tmp_path / "other")[1], bad)

    second = shards_of(folder)[1].name
    refused(lambda bad: (bad / second).unlink(), f"{second} is missing: .* copy all of them")
    refused(lambda bad: (bad / second).write_bytes((folder / second).read_bytes()[:-5]), f"{second} is damaged, or of")
    refused(of_another, f"{second} is damaged, or of other weights")
    refused(lambda bad: (bad / INDEX).write_text("{"), "is damaged or no index")
    refused(lambda bad: (bad / INDEX).unlink(), "no weights at")
    refused(index_with(metadata={"format": "pt"}), "not one of FlowMo's")
    where, digests = (json.loads((folder / INDEX).read_text())[name] for name in ("weight_map", "sha256"))
    name = next(iter(where))
    refused(index_with(weight_map=where | {name: "../x.safetensors"}), "names shards that it should not")
    outside = {k: v.replace("model-", "../shards/model-") for k, v in where.items()}
    refused(
        index_with(weight_map=outside, sha256={k.replace("model-", "../shards/model-"): v for k, v in digests.items()}),
        "names shards that it should not",
    )
    refused(index_with(weight_map={k: v for k, v in where.items() if k != name}), "holds other tensors than")
