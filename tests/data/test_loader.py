"""The order of training images: fixed by (seed, position), the same after a resume and over any number of ranks."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowmo import samples
from flowmo.data import Batch, BatchLoader, ImageSource, center_crop, open_images, to_tensor
from flowmo.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty different pieces of real photographs, 80x60, as files."""
    folder = tmp_path_factory.mktemp("pieces")
    for k, path in enumerate(samples.paths()):
        image = Image.open(path)
        for j in range(5):
            image.crop((40 * j, 20 * k, 40 * j + 80, 20 * k + 60)).save(folder / f"{k}{j}.png")
    return folder


@pytest.fixture(scope="module")
def source(folder: Path) -> ImageSource:
    return open_images(folder)


def batches(source: ImageSource, count: int, batch_size: int = 6, **options: object) -> list[Batch]:
    with BatchLoader(source, batch_size, 32, **{"seed": 3, "flip": True, "workers": 0, **options}) as loader:  # type: ignore[arg-type]
        return list(islice(loader, count))


def shown(found: list[Batch]) -> list[int]:
    return [index for batch in found for index in batch.indices]


def test_each_epoch_is_a_new_permutation(source: ImageSource) -> None:
    order = shown(batches(source, 20))
    epochs = [order[e * 40 : (e + 1) * 40] for e in range(3)]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0] != list(range(40))
    assert shown(batches(source, 20, seed=4)) != order


def test_resuming_anywhere_gives_the_same_bits(source: ImageSource) -> None:
    whole = batches(source, 16)
    for stop in range(1, 16):
        rest = batches(source, 16 - stop, start=whole[stop - 1].position, workers=2 if stop == 7 else 0)
        for one, other in zip(whole[stop:], rest, strict=True):
            assert one.indices == other.indices
            assert one.position == other.position
            assert torch.equal(one.images, other.images)


def test_position_counts_used_batches_not_prefetched_ones(source: ImageSource) -> None:
    with BatchLoader(source, 6, 32, seed=3, flip=True, workers=2) as loader:
        first = list(islice(loader, 4))
        assert loader.position == first[-1].position == 24
        second = list(islice(loader, 4))
    assert shown(first + second) == shown(batches(source, 8))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_and_batch_size_change_nothing(source: ImageSource, workers: int) -> None:
    one, other = batches(source, 10), batches(source, 4, batch_size=15, workers=workers)
    assert shown(one) == shown(other)
    assert torch.equal(torch.cat([b.images for b in one]), torch.cat([b.images for b in other]))


def test_ranks_share_an_epoch_without_overlap(source: ImageSource) -> None:
    ranks = [shown(batches(source, 2, batch_size=5, rank=rank, world=4, workers=rank)) for rank in range(4)]
    assert sorted(index for rank in ranks for index in rank) == list(range(40))


def test_two_ranks_together_are_one(source: ImageSource) -> None:
    one = batches(source, 9, batch_size=12, start=5)
    ranks = [batches(source, 9, start=5, rank=rank, world=2) for rank in (0, 1)]
    for whole, even, odd in zip(one, *ranks, strict=True):
        assert whole.position == even.position == odd.position
        assert whole.indices[0::2] == even.indices
        assert whole.indices[1::2] == odd.indices
        assert torch.equal(whole.images[0::2], even.images)
        assert torch.equal(whole.images[1::2], odd.images)


def test_images_are_crops_of_the_photographs(source: ImageSource) -> None:
    (batch,) = batches(source, 1, crop="center", flip=False, scale_to=60)
    assert batch.images.shape == (6, 3, 32, 32)
    assert batch.images.dtype == torch.float32
    for image, index in zip(batch.images, batch.indices, strict=True):
        assert torch.equal(image, to_tensor(center_crop(source[index], 32)))


def test_parts_of_a_batch_are_every_kth_picture(tmp_path: Path) -> None:
    for k, path in enumerate(samples.paths()):
        (tmp_path / f"class{k % 3}").mkdir(exist_ok=True)
        (tmp_path / f"class{k % 3}" / path.name).write_bytes(path.read_bytes())
    (batch,) = batches(open_images(tmp_path), 1, batch_size=8)
    parts = [batch.part(k, 4) for k in range(4)]
    assert [len(part) for part in parts] == [2] * 4
    assert parts[1].indices == [batch.indices[1], batch.indices[5]]
    assert parts[1].names == [batch.names[1], batch.names[5]]
    assert torch.equal(parts[3].to("cpu").images, batch.images[3::4])
    assert batch.labels is not None
    assert batch.labels.tolist() == [int(name[5]) for name in batch.names]
    assert torch.equal(parts[2].to("cpu").labels, batch.labels[2::4])  # type: ignore[arg-type]


def test_without_labels(source: ImageSource) -> None:
    (batch,) = batches(source, 1)
    assert batch.labels is None
    assert batch.part(0, 2).to("cpu").labels is None
    assert batch.names == [source.name(i) for i in batch.indices]


def test_random_crops_and_flips_vary_over_epochs(source: ImageSource) -> None:
    views: dict[int, list[tuple[int, int, bool]]] = {}
    for batch in batches(source, 40, scale_to=60):
        for image, index in zip(batch.images, batch.indices, strict=True):
            whole = to_tensor(source[index])
            views.setdefault(index, []).append(find(image, whole))
    places = [view for seen in views.values() for view in seen]
    assert 0.35 < np.mean([flipped for _, _, flipped in places]) < 0.65
    assert {top for top, _, _ in places} >= {0, 28}
    assert len({left for _, left, _ in places}) > 40
    assert all(len(set(seen)) > 1 for seen in views.values())


def find(crop: torch.Tensor, whole: torch.Tensor) -> tuple[int, int, bool]:
    """Where in the whole picture a crop lies, and whether it is mirrored; fails when it is nowhere."""
    windows = whole.unfold(1, 4, 1).unfold(2, 4, 1)[:, :29, :49]  # 3 Y X 4 4, the corner of every crop
    for flipped in (False, True):
        wanted = crop.flip(2) if flipped else crop
        for top, left in (windows == wanted[:, None, None, :4, :4]).all(dim=4).all(dim=3).all(dim=0).nonzero().tolist():
            if torch.equal(whole[:, top : top + 32, left : left + 32], wanted):
                return top, left, flipped
    raise AssertionError("a training image is no crop of its photograph")


def test_broken_images_are_replaced_named_and_counted(folder: Path, tmp_path: Path) -> None:
    broken = {"03.png", "31.png"}
    for path in folder.iterdir():
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(data[: len(data) // 2] if path.name in broken else data)
    source = open_images(tmp_path)
    good = batches(open_images(folder), 21)
    with BatchLoader(source, 6, 32, seed=3, flip=True, workers=3) as loader:
        found = list(islice(loader, 20))
    order, mended = shown(good), shown(found)  # One batch more of the order: the last image's successor.
    bad = {i for i in range(40) if source.name(i) in broken}
    for position, index in enumerate(order[:120]):
        following = next(i for i in order[position:] if i not in bad)
        assert mended[position] == (index if index not in bad else following)
    named = list(dict.fromkeys(source.name(i) for i in order[:120] if i in bad))  # once, though drawn three times
    assert len(named) == 2
    assert loader.skipped == named
    assert [name for batch in found for name in batch.skipped] == named
    again = batches(source, 8, start=72)
    assert all(torch.equal(a.images, b.images) for a, b in zip(found[12:], again, strict=True))


def test_too_many_broken_images_stop_the_run(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(b"" if path.name < "21" else path.read_bytes())
    with pytest.raises(DataError, match=r"11 of .*check the data"):
        batches(open_images(tmp_path), 100, batch_size=3)


def test_nothing_but_broken_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"in a row.*a\.png"):
        batches(open_images(tmp_path), 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"batch_size": 0},
        {"rank": 2, "world": 2},
        {"crop": "none"},
        {"scale_to": 31},
        {"start": -1},
        {"workers": -1},
    ],
)
def test_bad_settings(source: ImageSource, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        batches(source, 1, **wrong)  # type: ignore[arg-type]


def test_one_broken_image_of_fifty_never_ends_a_training(tmp_path: Path) -> None:
    for k in range(49):
        Image.new("RGB", (32, 32), (5 * k, 0, 0)).save(tmp_path / f"{k:02}.png")
    (tmp_path / "broken.png").write_bytes(b"x")
    with BatchLoader(open_images(tmp_path), 5, 32, seed=0, workers=0) as loader:
        named = [name for batch in islice(loader, 400) for name in batch.skipped]  # 40 epochs
    assert named == loader.skipped == ["broken.png"]


def test_eleven_broken_images_of_fifty_do(tmp_path: Path) -> None:
    for k in range(39):
        Image.new("RGB", (32, 32), (5 * k, 0, 0)).save(tmp_path / f"{k:02}.png")
    for k in range(11):
        (tmp_path / f"broken{k}.png").write_bytes(b"x")
    loader = BatchLoader(open_images(tmp_path), 5, 32, seed=0, workers=0)
    with loader, pytest.raises(DataError, match=r"11 of \d\d images could not be read"):
        list(islice(loader, 40))
