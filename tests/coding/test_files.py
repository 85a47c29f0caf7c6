"""Images become token files, and images again, by calls without a command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flowmo import samples
from flowmo.codec import Shard, TokenFile, write_file, write_shard
from flowmo.coding.files import TokenizeJob, decode_entries, open_token_files, token_targets, tokenize_images
from flowmo.data import open_image, to_image
from flowmo.describe import describe
from flowmo.errors import ConfigError, FlowMoError, TokenFileError
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.weights.load import load, packaged_names


@pytest.fixture(scope="module")
def model(lively: Callable[[nn.Module], nn.Module]) -> FlowMo:
    torch.manual_seed(1)
    return lively(FlowMo(tiny()))  # type: ignore[return-value]


def test_there_and_back_among_files_that_are_none(model: FlowMo, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for path in samples.paths()[:3]:
        (pictures / path.name).write_bytes(path.read_bytes())
    (pictures / "broken.png").write_bytes(b"nothing")
    bad: list[tuple[str, str]] = []

    def on_bad(file: object, error: FlowMoError, *_: int) -> None:
        bad.append((Path(str(file)).name, str(error)))

    size = (32, 32)
    paths, targets = token_targets([str(pictures)], tmp_path / "tokens")
    written = list(tokenize_images(model, TokenizeJob(paths, targets, size, batch_size=2), on_bad))
    assert [name for name, _ in bad] == ["broken.png"]
    assert [one.target for one in written] == [t for p, t in zip(paths, targets, strict=True) if p.name != "broken.png"]
    assert {one.payload for one in written} == {16 * 18 // 8}
    with pytest.raises(ConfigError, match="exist already"):
        token_targets([str(pictures)], tmp_path / "tokens")

    (tmp_path / "tokens" / "other.flowmo").write_bytes(b"nothing")
    entries, images, unreadable = open_token_files([str(tmp_path / "tokens")], tmp_path / "back", on_bad)
    assert (len(entries), len(images), unreadable) == (4, 4, 0)  # a single file is opened when it is decoded
    found = dict(decode_entries(model, entries, 2, False, on_bad, num_steps=2, seed=3))
    assert [name for name, _ in bad] == ["broken.png", "other.flowmo"]
    assert sorted(entries[place].name for place in found) == sorted(one.target.name for one in written)
    for place, image in found.items():
        assert image.size == (32, 32)
        source = next(one.image for one in written if one.target.name == entries[place].name)
        tokens = model.tokenize(open_image(source).image)
        again = to_image(model.detokenize(tokens, num_steps=2, seed=3)[0].cpu())
        difference = np.asarray(image).astype(int) - np.asarray(again)
        assert np.abs(difference).max() <= 1
    original = dict(decode_entries(model, entries[:1], 1, True, on_bad, num_steps=1))
    assert original[0].size != (32, 32)


def test_what_is_said_of_a_packaged_models_tokens(model: FlowMo, tmp_path: Path) -> None:
    tokens = model.tokenize(torch.zeros(1, 3, 32, 32))
    for name in packaged_names():
        file = TokenFile(tokens, load(name).fingerprint(), "crop", (32, 32))
        write_file(tmp_path / f"{name}.flowmo", file)
    said: dict[str, str] = {}
    entries = open_token_files([str(tmp_path)], tmp_path / "out", print).entries
    found = decode_entries(model, entries, 1, False, lambda file, error, *_: said.update({file.stem: str(error)}))
    assert not list(found)
    for name in packaged_names():
        assert f"it is that of the packaged {name}: --model {name} decodes it" in said[name]


def test_a_damaged_shard_is_told_as_one(model: FlowMo, tmp_path: Path) -> None:
    tokens = model.tokenize(torch.zeros(1, 3, 32, 32))
    write_shard(tmp_path / "whole", Shard(tokens, ["a"], None, 1, "crop", None))
    (tmp_path / "cut.Shard").write_bytes((tmp_path / "whole").read_bytes()[:-1])
    write_file(tmp_path / "one.shard", TokenFile(tokens, 1, "crop", (32, 32)))  # of another name than it has
    said: list[str] = []
    given = [str(tmp_path / name) for name in ("cut.Shard", "whole", "one.shard")]
    coded = open_token_files(given, tmp_path / "out", lambda file, error: said.append(str(error)))
    assert [entry.name for entry in coded.entries] == ["a", "one.shard"]
    assert len(said) == 1
    assert "as a token shard" in said[0]
    with pytest.raises(TokenFileError, match="as a token shard"):
        describe(given[0])
