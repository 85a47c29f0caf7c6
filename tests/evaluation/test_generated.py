"""Metrics of generated pictures: closed forms in a space of colours, kept statistics, and the real networks on real
photographs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from flowmo import samples
from flowmo.cli.main import main
from flowmo.data import FileSource, adm_crop, open_image, open_images, to_uint8
from flowmo.errors import ConfigError, DataError
from flowmo.evaluation import reference as reference_file
from flowmo.evaluation.generated import (
    Samples,
    agreement,
    class_places,
    common_side,
    measure_generated,
    read_samples,
)
from flowmo.evaluation.reference import adm_reference, reference_of
from flowmo.evaluation.results import read_result
from flowmo.metrics.statistics import RunningStatistics, Statistics

CPU = torch.device("cpu")


class Colours:
    """A network whose features can be computed by hand: the mean colour, and that of each quarter. It counts pictures
    and breaks off at a number of them."""

    name, spaces, checksum = "colours", ("pool", "spatial"), "0" * 64

    def __init__(self, most: int = 10**9) -> None:
        self.seen, self.most = 0, most

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        if self.seen + len(images) > self.most:
            raise KeyboardInterrupt
        self.seen += len(images)
        quarters = torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
        return {"pool": images.mean((2, 3)), "spatial": quarters}


class Network(Colours):
    """The same as a module is used."""

    def to(self, device: torch.device) -> Network:
        return self


@pytest.fixture(scope="module")
def pictures(photographs: Callable[[str, int], Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred photographs of 32 pixels, as an array."""
    path = tmp_path_factory.mktemp("pictures") / "pictures.npy"
    np.save(path, to_uint8(photographs("train", 100)).permute(0, 2, 3, 1).numpy())
    return path


def test_running_statistics_are_those_of_all_at_once() -> None:
    random = np.random.RandomState(0)
    features = random.standard_normal((500, 7)) @ random.standard_normal((7, 7)) + 1000
    running = RunningStatistics()
    for rows in np.split(features, [3, 100, 101, 400]):
        running.add(rows)
    again = RunningStatistics()
    again.restore({name: np.array(value) for name, value in running.state().items()})
    whole = Statistics.of(features)
    for statistics in (running.statistics(), again.statistics()):
        assert statistics.count == 500
        assert np.allclose(statistics.mean, whole.mean, rtol=1e-12)
        assert np.allclose(statistics.covariance, whole.covariance, rtol=1e-9)
    with pytest.raises(DataError, match="at least 2"):
        RunningStatistics().statistics()


def test_the_reference_by_adms_crop(tmp_path: Path) -> None:
    """Statistics of the pixels of ADM's crop, kept apart from those of the model's; a crop needs a data set."""
    pictures = [open_image(path).image for path in samples.paths()[:4]]
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, picture in enumerate(pictures):
        picture.save(folder / f"{i}.png")
    source = open_images(folder)
    model = reference_of(source, 48, Colours(), CPU, cache=tmp_path)
    adm = reference_of(source, 48, Colours(), CPU, cache=tmp_path, crop="adm")
    assert len(list(tmp_path.glob("*.npz"))) == 2
    assert (model.about["crop"], adm.about["crop"]) == ("model", "adm")
    means = np.stack([np.asarray(adm_crop(picture, 48)).reshape(-1, 3).mean(0) / 127.5 - 1 for picture in pictures])
    assert adm.features is not None
    assert np.allclose(adm.features, means, atol=1e-5)
    assert not np.allclose(adm.pool.mean, model.pool.mean, atol=1e-5)


def test_the_reference_crop_as_a_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("flowmo.evaluation.generated_session.load_inception", lambda *paths: Network())
    made = tmp_path / "made.npz"
    np.savez(made, arr_0=np.stack([np.asarray(adm_crop(open_image(p).image, 48)) for p in samples.paths()]))
    (tmp_path / "real").mkdir()
    for i, path in enumerate(samples.paths()):
        open_image(path).image.save(tmp_path / "real" / f"{i}.png")
    arguments = ["evaluate-generator", str(made), str(tmp_path / "real"), "--out", str(tmp_path), "--device", "cpu"]
    fids = {}
    for crop in ("model", "adm"):
        assert main([*arguments, "--reference-crop", crop, "--json", "--force"]) == 0
        fids[crop] = json.loads(capsys.readouterr().out)["results"][0]["fid"]
        assert read_result(tmp_path / "made.json").content["reference"]["crop"] == crop
    assert fids["adm"] == pytest.approx(0, abs=1e-7)
    assert fids["model"] > 1e-6
    arguments[2] = str(made)
    assert main([*arguments, "--reference-crop", "adm", "--force"]) == 2
    assert "is for a data set" in capsys.readouterr().err


def test_distances_in_closed_form(pictures: Path, tmp_path: Path) -> None:
    """Of the pictures themselves nothing is between; brighter by 8 levels is a shift of the mean alone."""
    source = open_images(pictures)
    reference = reference_of(source, 32, Colours(), CPU, cache=tmp_path)
    pixels = np.load(pictures)
    same = measure_generated(Samples(pixels, None, "same"), reference, Colours(), CPU)
    assert same["fid"] == pytest.approx(0, abs=1e-9)
    assert same["sfid"] == pytest.approx(0, abs=1e-9)
    assert (same["precision"], same["recall"]) == (1, 1)
    assert "inception_score" not in same
    dark = pixels // 2
    shifted = measure_generated(Samples(dark + 8, None, "shifted"), reference, Colours(), CPU)
    unshifted = measure_generated(Samples(dark, None, "dark"), reference, Colours(), CPU)
    mean = dark.reshape(-1, 3).mean(0) / 127.5 - 1
    before, after = (np.square(m - reference.pool.mean).sum() for m in (mean, mean + 8 / 127.5))
    moved = after - before
    assert shifted["fid"] - unshifted["fid"] == pytest.approx(moved, abs=1e-6)


def test_the_inception_score_has_a_short_last_part_as_adms(pictures: Path, tmp_path: Path) -> None:
    """12,345 samples are parts of 5,000, 5,000 and 2,345; ten equal parts, or three, would give another number."""

    class WithLogits(Colours):
        def __call__(self, images: Tensor) -> dict[str, Tensor]:
            found = super().__call__(images)
            return found | {"logits": 40 * found["spatial"][:, :6]}

    random = np.random.RandomState(0)
    drift = np.linspace(0, 100, 12_345)[:, None, None, None] * np.array([1, 0, 0])  # so that no part is like the whole
    pixels = (random.randint(0, 156, (12_345, 4, 4, 3)) + drift).astype(np.uint8)
    reference = reference_of(open_images(pictures), 32, Colours(), CPU, cache=tmp_path)
    reference = replace(reference, features=None)  # no precision and recall, which take long for so many
    found = measure_generated(Samples(pixels, None, "made"), reference, WithLogits(), CPU)["inception_score"]
    quarters = pixels.reshape(-1, 2, 2, 2, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2).reshape(-1, 12) / 127.5 - 1
    p = np.exp(40 * quarters[:, :6])
    p /= p.sum(1, keepdims=True)

    def score(part: np.ndarray) -> float:
        return float(np.exp((part * (np.log(part) - np.log(part.mean(0)))).sum(1).mean()))

    expected = np.mean([score(p[:5000]), score(p[5000:10_000]), score(p[10_000:])])
    assert found == pytest.approx(expected, rel=1e-5)
    for parts in (1, 3, 10):
        assert abs(np.mean([score(part) for part in np.array_split(p, parts)]) / expected - 1) > 5e-4


def test_statistics_are_made_once_and_for_these_pictures(pictures: Path, tmp_path: Path) -> None:
    network = Colours()
    first = reference_of(open_images(pictures), 32, network, CPU, cache=tmp_path)
    assert network.seen == 100
    told: list[int] = []
    again = reference_of(open_images(pictures), 32, network, CPU, told.append, tmp_path)
    assert network.seen == 100
    assert told == [100]
    assert np.array_equal(first.pool.covariance, again.pool.covariance)
    assert first.features is not None
    assert first.features.shape == (100, 3)
    reference_of(open_images(pictures), 16, network, CPU, cache=tmp_path)  # another size
    assert network.seen == 200
    other = np.load(pictures)
    other[50] = 255 - other[50]
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other" / "pictures.npy", other)  # the same names, one other picture
    reference_of(open_images(tmp_path / "other" / "pictures.npy"), 32, network, CPU, cache=tmp_path)
    assert network.seen == 300
    files = sorted(tmp_path.glob("*.npz"))
    assert len(files) == 3
    for file in files:
        file.write_bytes(file.read_bytes()[:100])
    reference_of(open_images(pictures), 32, network, CPU, cache=tmp_path)  # damaged: made again
    assert network.seen == 400


def test_statistics_go_on_after_a_kill(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_file, "_SAVE_EVERY", 32)
    source = open_images(pictures)
    with pytest.raises(KeyboardInterrupt):
        reference_of(source, 32, Colours(most=70), CPU, cache=tmp_path)
    assert len(list(tmp_path.glob("*.part.npz"))) == 1
    rest = Colours()
    resumed = reference_of(source, 32, rest, CPU, cache=tmp_path)
    assert rest.seen == 36
    whole = reference_of(source, 32, Colours(), CPU, cache=tmp_path / "whole")
    assert np.allclose(resumed.pool.covariance, whole.pool.covariance, rtol=1e-12)
    assert resumed.features is not None
    assert whole.features is not None
    assert np.array_equal(resumed.features, whole.features)
    assert not list(tmp_path.glob("*.part.npz"))


def test_broken_pictures_count_for_nothing(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for i, pixels in enumerate(np.load(pictures)[:6]):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "3.png").write_bytes(b"no picture")
    reference = reference_of(open_images(folder), 32, Colours(), CPU, cache=tmp_path)
    assert reference.pool.count == 5
    with pytest.raises(DataError, match="none of the pictures"):
        reference_of(FileSource(folder, ["3.png"]), 32, Colours(), CPU, cache=tmp_path)


def test_reference_files_of_adms_evaluator(pictures: Path, tmp_path: Path) -> None:
    pixels = np.load(pictures)
    own = reference_of(open_images(pictures), 32, Colours(), CPU, cache=tmp_path)
    assert own.spatial is not None
    arrays = {"mu": own.pool.mean, "sigma": own.pool.covariance}
    arrays |= {"mu_s": own.spatial.mean, "sigma_s": own.spatial.covariance}
    np.savez(tmp_path / "statistics.npz", **arrays)
    np.savez(tmp_path / "both.npz", arr_0=pixels, **arrays)
    np.savez(tmp_path / "pictures.npz", arr_0=pixels)
    samples = Samples(pixels[:50], None, "half")
    expected = measure_generated(samples, own, Colours(), CPU)
    for name in ("statistics", "both", "pictures"):
        reference = adm_reference(tmp_path / f"{name}.npz", Colours(), CPU)
        found = measure_generated(samples, reference, Colours(), CPU)
        assert ("precision" in found) == (name != "statistics")
        assert found == pytest.approx({key: expected[key] for key in found}, abs=1e-6)
    with pytest.raises(DataError, match="features of 12 and of 2 numbers"):
        measure_generated(samples, replace(own, spatial=Statistics(0, np.zeros(2), np.eye(2))), Colours(), CPU)
    np.savez(tmp_path / "neither.npz", a=pixels)
    for name in ("neither", "absent"):
        with pytest.raises(DataError, match=name):
            adm_reference(tmp_path / f"{name}.npz", Colours(), CPU)


def test_places_of_classes_are_the_best_increasing_ones() -> None:
    """Against every increasing way there is."""
    random = np.random.RandomState(1)
    logits = random.standard_normal((40, 7))
    labels = np.arange(40) % 3
    logits[labels == 0, 2] += 2
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    score = np.stack([log_p[labels == c].mean(0) for c in range(3)])
    best = max(itertools.combinations(range(7), 3), key=lambda way: sum(score[c, p] for c, p in enumerate(way)))
    assert tuple(class_places(logits, labels)) == best
    with pytest.raises(DataError, match="no picture"):
        class_places(logits, np.where(labels == 1, 2, labels))
    sure = np.eye(7)[[1, 4, 6]][labels] * 9
    assert class_places(sure, labels).tolist() == [1, 4, 6]
    assert agreement(sure, labels, np.array([1, 4, 6])) == 1
    assert agreement(sure, (labels + 1) % 3, np.array([1, 4, 6])) == 0


def test_samples_that_are_none(pictures: Path, tmp_path: Path) -> None:
    pixels = np.load(pictures)[:4]
    np.savez(tmp_path / "good.npz", arr_0=pixels, arr_1=np.arange(4))
    assert read_samples(tmp_path / "good.npz").labels is not None
    for name, arrays in {
        "no-pictures": {"x": pixels},
        "floats": {"arr_0": pixels / 255},
        "flat": {"arr_0": pixels[0]},
        "labels": {"arr_0": pixels, "arr_1": np.arange(3)},
    }.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(DataError, match=name):
            read_samples(tmp_path / f"{name}.npz")
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    (tmp_path / "folder").mkdir()
    Image.fromarray(pixels[0]).save(tmp_path / "folder" / "a.png")
    assert read_samples(tmp_path / "folder").pixels.shape == (1, 32, 32, 3)
    Image.fromarray(pixels[0][:, :16]).save(tmp_path / "folder" / "b.png")
    for name in ("bad.npz", "absent.npz", "folder"):
        with pytest.raises(DataError, match=name):
            read_samples(tmp_path / name)
    with pytest.raises(DataError, match="no such file or folder; 'flowmo generate --npz FILE' makes one"):
        read_samples(tmp_path / "absent.npz")


@pytest.fixture(scope="module")
def three_classes(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of photographs of 64 pixels, and others of the same classes as samples with labels."""
    root = tmp_path_factory.mktemp("classes")
    data = open_images(shared / "data" / "tiny64", split="validation")
    labels = np.array([data.label(i) for i in range(len(data))])
    pixels, asked = [], []
    for k, name in ((75, "a school bus"), (95, "b pizza"), (96, "c alp")):  # in the order of their WordNet ids
        places = np.flatnonzero(labels == k)[:20]
        (root / "real" / name).mkdir(parents=True)
        for place in places[:12]:
            data[int(place)].save(root / "real" / name / f"{place}.png")
        pixels += [np.asarray(data[int(place)]) for place in places[12:]]
        asked += [len(asked) // 8] * 8
    np.savez(root / "good.npz", arr_0=np.stack(pixels), arr_1=np.array(asked))
    noise = np.random.RandomState(0).randint(0, 256, (24, 64, 64, 3)).astype(np.uint8)
    np.savez(root / "noise.npz", arr_0=noise, arr_1=np.array(asked))
    return root


def test_the_command_tells_photographs_from_noise(
    three_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the genuine Inception and the genuine classifier."""
    monkeypatch.setenv("FLOWMO_CACHE", str(tmp_path / "cache"))
    samples = [str(three_classes / f"{name}.npz") for name in ("good", "noise")]
    arguments = ["evaluate-generator", *samples, str(three_classes / "real"), "--out", str(tmp_path), "--device", "cpu"]
    assert main([*arguments, "--json"]) == 0
    good, noise = json.loads(capsys.readouterr().out)["results"]
    assert good["count"] == 24
    assert good["fid"] < 0.7 * noise["fid"]
    assert good["kid"] < 0.5 * noise["kid"]
    assert min(good["sfid"], noise["sfid"]) > 0  # of so few pictures it says no more
    assert noise["precision"] < 0.2 < good["precision"]
    assert good["agreement"] > 0.7
    assert noise["agreement"] < 0.6
    assert good["agreement_chance"] == pytest.approx(1 / 3)
    result = read_result(tmp_path / "good.json")
    assert result.kind == "generation"
    assert result.content["metrics"]["fid"] == good["fid"]
    assert result.content["reference"]["count"] == 36
    assert str(tmp_path) not in (tmp_path / "good.json").read_text()
    assert len(list((tmp_path / "cache" / "statistics").glob("*.npz"))) == 1
    assert main(arguments) == 2
    assert "exist already" in capsys.readouterr().err


def test_samples_are_square_and_of_one_size() -> None:
    def samples(height: int, width: int) -> Samples:
        return Samples(np.zeros((2, height, width, 3), np.uint8), None, "zeros")

    assert common_side([samples(32, 32), samples(32, 32)]) == 32
    for others in ([samples(32, 32), samples(64, 64)], [samples(32, 64)]):
        with pytest.raises(ConfigError, match="square and of one size"):
            common_side(others)
