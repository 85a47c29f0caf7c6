"""The comparison: numbers equal to those taken by hand, rows on disk, what a kill leaves."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from codec_support import alex_or_skip
from torch import Tensor

from flowmo.comparison.adapters import FlowMoPeer, ThumbnailPeer
from flowmo.comparison.codecs import get_codec, restore
from flowmo.comparison.coded import Choices, Search, code_all
from flowmo.comparison.compare import (
    Row,
    check_targets,
    codec_methods,
    compare,
    control_methods,
    peer_method,
)
from flowmo.comparison.published import TABLE_1
from flowmo.comparison.report import in_words
from flowmo.comparison.table import code_costs, markdown, table
from flowmo.data import to_tensor, to_uint8
from flowmo.errors import ConfigError
from flowmo.evaluation.evaluator import Evaluator
from flowmo.evaluation.feature_cache import FeatureCache
from flowmo.evaluation.result_store import ResultStore
from flowmo.metrics.distances import frechet_of_features, kid
from flowmo.metrics.networks import Networks
from flowmo.metrics.pixels import psnr, ssim, thumbnail
from flowmo.metrics.table import columns
from flowmo.perceptual import LPIPS
from flowmo.tokenizer import FlowMo

SEARCH = Search((70, 300), ("file", "payload"))
SEEDS = range(8)
METRICS = ("psnr", "ssim", "lpips_alex", "rfid", "kid")


@pytest.fixture(scope="module")
def alex() -> LPIPS:
    return alex_or_skip()


class Colours:
    """A feature network small enough to check by hand: the means of the colours in four quarters."""

    name, spaces, checksum = "colours", ("pool",), "0"

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        return {"pool": torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)}


@pytest.fixture
def images(samples: Callable[[int], Tensor]) -> Tensor:
    return to_uint8(samples(32))


@pytest.fixture
def evaluator(images: Tensor, alex: LPIPS) -> Evaluator:
    return Evaluator(images, Networks(METRICS, {"alex": alex}, {"inception": Colours()}), batch_size=3)


def code(images: Tensor, alex: LPIPS, store: ResultStore, name: str = "jpeg") -> list[Choices]:
    return code_all(images, [get_codec(name)], SEARCH, alex, store, lambda codec: None, workers=2)[name]


def test_rows_are_what_one_measures_by_hand(
    evaluator: Evaluator, images: Tensor, alex: LPIPS, model: FlowMo, tmp_path: Path
) -> None:
    store, codec = ResultStore(tmp_path / "l"), get_codec("jpeg")
    choices = code(images, alex, store)
    peers = [FlowMoPeer("ours", model, {"num_steps": 1}), ThumbnailPeer(70)]
    methods = [peer_method(peer, (32, 32), SEEDS) for peer in peers] + codec_methods(codec, choices, SEARCH)
    said: list[Row] = []
    rows = compare(evaluator, methods, store, said.append)
    assert said == rows
    assert [(row.name, row.counted, row.target) for row in rows] == [
        ("ours", None, None),
        ("thumbnail", None, 70),
        ("jpeg", "file", 70),
        ("jpeg", "file", 300),
        ("jpeg", "payload", 70),
        ("jpeg", "payload", 300),
    ]
    x = images.float() / 127.5 - 1
    chosen = [picture["payload", 70] for picture in choices]
    assert all(choice is not None for choice in chosen)
    decoded = torch.stack([to_tensor(restore(codec, choice.data, (32, 32))) for choice in chosen if choice])
    ours = to_uint8(model.reconstruct(x, num_steps=1, seed=list(SEEDS))).float() / 127.5 - 1
    for row, again in ((rows[0], ours), (rows[4], decoded)):
        a, b = (Colours()(y)["pool"].numpy() for y in (x, again))
        expected = {
            "psnr": psnr(again, x).mean(),
            "ssim": ssim(again, x).mean(),
            "lpips_alex": alex(again, x).mean(),
            "rfid": frechet_of_features(a, b),
            "kid": kid(a, b)[0],
        }
        assert {name: row.metrics[name] for name in expected} == pytest.approx(
            {name: float(value) for name, value in expected.items()}, rel=1e-4, abs=1e-6
        )
    small = to_uint8(thumbnail(x, 8 * 70)).float() / 127.5 - 1
    assert rows[4].metrics["beats_thumbnail"] == float((alex(decoded, x) < alex(small, x)).double().mean())
    assert 0 <= rows[0].metrics["beats_thumbnail"] <= 1
    assert "beats_thumbnail" not in rows[1].metrics
    assert (rows[0].file_bytes, rows[0].payload_bytes, rows[0].bits_per_pixel) == (60, 36, 36 * 8 / 1024)
    sizes = [(len(c.data), c.payload_bytes) for c in chosen if c is not None]
    assert rows[4].file_bytes == pytest.approx(sum(s for s, _ in sizes) / 8)
    assert rows[4].payload_bytes == pytest.approx(sum(s for _, s in sizes) / 8)
    assert rows[4].payload_bytes <= 70 < rows[4].file_bytes
    assert sum((rows[4].scales or {}).values()) == 8


def test_every_method_stands_beside_the_closed_form_code(
    evaluator: Evaluator, images: Tensor, alex: LPIPS, model: FlowMo, tmp_path: Path
) -> None:
    """Of as many bytes or fewer, itself apart."""
    linear = [FlowMoPeer("transform", model, {"num_steps": 4})]  # of 36 bytes
    ours = FlowMoPeer("ours", model, {"num_steps": 1})
    methods = [peer_method(peer, (32, 32), SEEDS) for peer in (ours, *linear, ThumbnailPeer(70), ThumbnailPeer(30))]
    store = ResultStore(tmp_path / "l")
    rows = compare(evaluator, methods, store, lambda row: None, linear)
    x = images.float() / 127.5 - 1
    near = [
        alex(to_uint8(model.reconstruct(x, num_steps=steps, seed=list(seeds))).float() / 127.5 - 1, x)
        for steps, seeds in ((1, SEEDS), (4, range(8)))
    ]
    assert rows[0].metrics["beats_transform"] == float((near[0] < near[1]).double().mean())
    assert ["beats_transform" in row.metrics for row in rows] == [True, False, True, False]
    assert "beats_transform" not in compare(evaluator, methods[:1], store, lambda row: None)[0].metrics


def test_controls_are_one_step_and_the_code_of_the_picture_before(
    evaluator: Evaluator, images: Tensor, model: FlowMo, tmp_path: Path
) -> None:
    peer = FlowMoPeer("ours", model, {"num_steps": 4})
    methods = control_methods(peer, images, SEEDS)
    rows = compare(evaluator, methods, ResultStore(tmp_path / "l"), lambda row: None)
    assert [row.name for row in rows] == ["ours, one step", "ours, another picture's code"]
    x = images.float() / 127.5 - 1
    for row, settings, source in (
        (rows[0], {"num_steps": 1, "guidance_scale": 1.0}, x),
        (rows[1], {"num_steps": 4}, x.roll(1, 0)),
    ):
        again = to_uint8(model.reconstruct(source, **settings, seed=list(SEEDS))).float() / 127.5 - 1
        assert row.metrics["psnr"] == pytest.approx(float(psnr(again, x).mean()), rel=1e-4)
        assert set(row.metrics) == {"psnr", "ssim", "lpips_alex", "beats_thumbnail"}
        assert row.payload_bytes == 36
    itself = compare(evaluator, [peer_method(peer, (32, 32), SEEDS)], ResultStore(tmp_path / "m"), lambda row: None)
    lost = itself[0].metrics["psnr"] - rows[1].metrics["psnr"]
    assert code_costs([*itself, *rows]) == [f"ours at 36 bytes: another picture's code costs {lost:.2f} dB"]


def test_a_row_that_some_pictures_do_not_reach_has_no_numbers(
    evaluator: Evaluator, images: Tensor, alex: LPIPS, tmp_path: Path
) -> None:
    store = ResultStore(tmp_path / "l")
    choices = code(images, alex, store)
    choices[3] = {key: None for key in choices[3]}
    rows = compare(evaluator, codec_methods(get_codec("jpeg"), choices, SEARCH), store, lambda row: None)
    assert [row.reached for row in rows] == [0, 7, 7, 7]
    assert all(not row.metrics and row.file_bytes is None and row.payload_bytes is None for row in rows)
    _, lines = table(rows, quoted=False)
    assert "7 of 8" in " ".join(lines[1])
    assert lines[1].count("-") == 3


def test_what_was_coded_and_measured_is_not_done_again(
    evaluator: Evaluator, images: Tensor, alex: LPIPS, tmp_path: Path
) -> None:
    path, codec = tmp_path / "folder" / "l", get_codec("jpeg")
    first = code(images, alex, ResultStore(path))
    rows = compare(evaluator, codec_methods(codec, first, SEARCH), ResultStore(path), lambda row: None)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b'[["coded", "cut off by a ki')

    def never(*_: object) -> Tensor:
        raise AssertionError("measured again")

    store = ResultStore(path)
    assert path.stat().st_size == size
    idle = replace(codec, encode=never)  # type: ignore[arg-type]
    again = code_all(images, [idle], SEARCH, never, store, lambda codec: None)["jpeg"]
    assert again == first
    blind = Evaluator(images, Networks(METRICS, {"alex": never}, {"inception": Colours()}), 3)  # type: ignore[dict-item]
    assert compare(blind, codec_methods(codec, again, SEARCH), store, lambda row: None) == rows
    assert path.stat().st_size == size
    more = Search((70, 300, 400), ("file",))  # another question has its own answers
    with pytest.raises(AssertionError, match="measured again"):
        code_all(images, [idle], more, never, store, lambda codec: None)


def test_features_are_kept_by_what_is_seen(images: Tensor, alex: LPIPS, tmp_path: Path) -> None:
    """A comparison killed in the middle of a row goes on there, and pictures that are the same are looked at once."""
    looked: list[int] = []

    class Counting(Colours):
        def __call__(self, batch: Tensor) -> dict[str, Tensor]:
            looked.append(len(batch))
            return super().__call__(batch)

    def measured(batch_size: int = 3) -> dict[str, float]:
        cache = {"inception.pool": FeatureCache(tmp_path / "features")}
        evaluator = Evaluator(images, Networks(METRICS, {}, {"inception": Counting()}), batch_size, cache=cache)
        return evaluator.metrics(evaluator.measure(lambda batch, places: batch.flip(3)))

    first = measured()
    assert looked == [3, 3, 2] * 2  # the flipped ones and the originals
    assert measured() == measured(5) == first
    assert len(looked) == 6
    evaluator = Evaluator(images, Networks(METRICS, {}, {"inception": Colours()}), 3)
    assert evaluator.metrics(evaluator.measure(lambda batch, places: batch.flip(3))) == first


def test_an_interrupted_coding_keeps_what_it_had(images: Tensor, alex: LPIPS, tmp_path: Path) -> None:
    codec, path = get_codec("jpeg"), tmp_path / "l"

    class Stop(Exception):
        pass

    done = []

    def stop(name: str) -> None:
        done.append(name)
        if len(done) == 3:
            raise Stop

    with pytest.raises(Stop):
        code_all(images, [codec], SEARCH, alex, ResultStore(path), stop, workers=1)
    assert len(ResultStore(path).entries) == 3
    whole = code_all(images, [codec], SEARCH, alex, ResultStore(path), lambda name: None, workers=1)
    assert whole["jpeg"] == code(images, alex, ResultStore(tmp_path / "other"))


def test_damaged_lines_of_a_result_store_are_left_out(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "l")
    store.add(["a", 1], {"x": 2.5})
    with store.path.open("ab") as file:
        file.write(b'no json\n[1]\n3\n\xff\xfe\n[["a", 2], 7]\n[["b"')
    assert ResultStore(store.path).entries == {'["a", 1]': {"x": 2.5}, '["a", 2]': 7}
    store = ResultStore(store.path)
    store.add(["a", 1], 8)
    assert ResultStore(store.path).get(["a", 1]) == 8
    assert ResultStore(store.path).get(["c"]) is None
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ConfigError, match="pipe is no plain file"):
            ResultStore(tmp_path / "pipe")


def test_numbers_of_bytes_that_make_no_sense() -> None:
    check_targets([3, 144, 12288], 4096)
    for target in (2, 12289):
        with pytest.raises(ConfigError, match=str(target)):
            check_targets([144, target], 4096)


ROW = Row("webp", "codec", "", "file", 144, 5, 5, 140.0, 112.0, 0.27, 0.22, {"psnr": 20.0, "kid": 0.0125}, {"1": 5})


def test_a_row_in_words_says_what_was_counted() -> None:
    assert in_words(ROW).startswith("webp, 144 bytes a whole file: PSNR dB 20.00")
    assert in_words(replace(ROW, counted="payload", reached=0)) == (
        "webp, 144 bytes without headers: no picture can be so small"
    )
    assert in_words(replace(ROW, reached=2)).endswith("only 2 of 5 pictures can be so small")


def test_the_table_puts_like_bytes_together() -> None:
    rows = [
        replace(ROW, target=300, payload_bytes=290.0),
        ROW,
        replace(ROW, name="ours", group="model", counted=None, target=None, payload_bytes=144.0),
        replace(ROW, name="theirs", group="tokenizer", counted=None, target=None, file_bytes=None, payload_bytes=None),
    ]
    heading, lines = table(rows)
    assert [line[0] for line in lines[:4]] == ["ours", "webp", "webp", "theirs"]
    assert [line[0] for line in lines[4:]] == [row.name for row in TABLE_1]
    assert all(line[1] == "quoted" for line in lines[4:])
    assert all(len(line) == len(heading) for line in lines)
    assert lines[1][heading.index(columns()["kid"].heading)] == "12.50"
    assert "LPIPS Alex" not in heading
    text = markdown(rows, "a caption")
    assert text.startswith("a caption\n")
    assert "quoted: printed in Table 1" in text
    assert text.count("\n| ") == len(lines) + 2


def test_table_1_is_the_papers(shared: Path) -> None:
    """Every printed number, read again from the paper's own text."""
    text = next(t for path in (shared / "paper").glob("*.txt") if "Cosmos DI-16x16" in (t := path.read_text()))
    pattern = re.compile(r"^(0\.\d{3})\t(.+)\t(\d+)\t\$?(?:\\approx )?2\^\{(\d+)\}\$?\t(.+)\t(.+)\t(.+)\t(.+)$", re.M)
    printed = pattern.findall(text.replace("$2^", "2^"))
    assert len(printed) == len(TABLE_1) == 12
    for row, (rate, name, tokens, bits, *numbers) in zip(TABLE_1, printed, strict=True):
        assert name.startswith(row.name)
        assert (row.bits_per_pixel, row.tokens, row.bits_per_token) == (float(rate), int(tokens), int(bits))
        assert row.second_hand == ("†" in name)
        values = [None if number.strip() == "-" else float(number) for number in numbers]
        assert [row.rfid, row.psnr, row.ssim, row.lpips] == values
    assert json.dumps([row._asdict() for row in TABLE_1])
