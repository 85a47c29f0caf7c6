"""flowmo generate as a user runs it: the small tokenizer, and small generators of random weights."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_support import Command
from PIL import Image

import warm_python
from flowmo.files import only_one
from flowmo.generation import (
    PACKAGED_GENERATOR,
)
from flowmo.pipelines import many_images
from flowmo.training import World
from flowmo.weights import load

DOG, FISH = "0001-labrador-retriever", "0000-goldfish"  # names of files
CLASSES = ["n01443537 goldfish", "n02099712 Labrador retriever", "n02123394 Persian cat"]


def test_compiled_models_see_one_shape_and_draw_the_same(
    generate: Command, generators: Path, compiled_shapes: list[tuple[str, tuple[int, ...]]]
) -> None:
    """Five pictures in batches of two: the last of them comes in a whole batch too."""
    more = (
        "--generator",
        generators / "a",
        "--class",
        0,
        "--count",
        5,
        "--batch-size",
        2,
        "--seed",
        3,
        "--no-pictures",
    )
    more += ("--force",)
    assert generate(*more, "--npz", "plain.npz").code == 0
    assert not compiled_shapes
    assert generate(*more, "--npz", "compiled.npz", "--compile").code == 0
    kinds = {name for name, _ in compiled_shapes}
    assert len(kinds) == 2, kinds  # the generator's blocks and the decoder's pass
    assert {shape[0] for _, shape in compiled_shapes} == {2, 4}  # with guidance both conditions share a pass
    plain, compiled = (np.load(name)["arr_0"].astype(int) for name in ("plain.npz", "compiled.npz"))
    assert np.abs(plain - compiled).max() <= 1
    half = generate(*more, "--npz", "half.npz", "--precision", "bf16")
    assert half.code == 0, half.err
    assert np.load("half.npz")["arr_0"].shape == (5, 32, 32, 3)


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_pictures_by_name_and_number(generate: Command, generators: Path) -> None:
    result = generate(
        "--generator", generators / "a", "--class", 2, "--class", "Labrador retriever", "--count", 3, "--json"
    )
    assert result.code == 0
    assert result.json["classes"] == ["2 Persian cat", "1 Labrador retriever"]
    names = [f"{c}-{i:04d}.png" for c in ("0002-persian-cat", "0001-labrador-retriever") for i in range(3)]
    assert [Path(text).name for text in result.json["written"]] == names
    out = Path("flowmo-out")
    assert len({pixels(out / name).tobytes() for name in names}) == 6
    assert pixels(out / names[0]).shape == (32, 32, 3)
    grid = pixels(out / "grid.png")
    assert grid.shape == (2 * (18 + 128 + 4) - 4, 3 * (128 + 4) - 4, 3)
    assert np.array_equal(grid[18 : 18 + 128 : 4, 0:128:4], pixels(out / names[0]))


def test_batches_and_company_do_not_change_a_picture(generate: Command, generators: Path) -> None:
    a = generators / "a"
    assert generate("--generator", a, "--count", 2, "--out", "all", "--batch-size", 5).code == 0
    assert generate("--generator", a, "--count", 2, "--out", "one", "--batch-size", 1, "--class", 1).code == 0
    assert generate("--generator", a, "--count", 1, "--out", "later", "--class", 1, "--seed", 1).code == 0
    for i in range(2):
        together, alone = (pixels(f"{out}/{DOG}-000{i}.png").astype(int) for out in ("all", "one"))
        assert np.abs(together - alone).max() <= 1  # roundings of the decoder
    assert np.abs(pixels(f"later/{DOG}-0001.png").astype(int) - pixels(f"one/{DOG}-0001.png")).max() <= 1
    assert not np.array_equal(pixels(f"one/{DOG}-0000.png"), pixels(f"one/{DOG}-0001.png"))


def test_adms_layout(generate: Command, generators: Path) -> None:
    arguments = ["--generator", generators / "a", "--count", 2]
    assert generate(*arguments, "--npz", "s/samples.npz", "--out", "with").code == 0
    assert generate(*arguments, "--npz", "s/alone.npz", "--no-pictures", "--out", "without").code == 0
    assert not Path("without").exists()
    assert sorted(p.name for p in Path("s").iterdir()) == ["alone.npz", "samples.npz"]
    with np.load("s/samples.npz") as samples, np.load("s/alone.npz") as alone:
        assert samples["arr_0"].dtype == np.uint8
        assert samples["arr_0"].shape == (6, 32, 32, 3)
        assert samples["arr_1"].tolist() == [0, 0, 1, 1, 2, 2]
        assert np.array_equal(samples["arr_0"], alone["arr_0"])
        assert np.array_equal(samples["arr_0"][3], pixels(f"with/{DOG}-0001.png"))


def test_moments_of_the_unmasking(generate: Command, generators: Path) -> None:
    arguments = ["--generator", generators / "a", "--class", 0, "--class", 1, "--count", 1, "--show-steps", 3]
    assert generate(*arguments).code == 0
    strip = pixels("flowmo-out/steps.png")
    margin = strip.shape[1] - 3 * (128 + 4)
    for r, name in enumerate((FISH, DOG)):  # the last moment is the picture
        last = strip[r * 132 : r * 132 + 128 : 4, margin + 2 * 132 : margin + 2 * 132 + 128 : 4]
        assert np.abs(last.astype(int) - pixels(f"flowmo-out/{name}-0000.png")).max() <= 1
        assert not np.array_equal(last, strip[r * 132 : r * 132 + 128 : 4, margin : margin + 128 : 4])


def test_two_generators_side_by_side(generate: Command, generators: Path) -> None:
    """Each with the tokenizer of its fingerprint, in whatever order they are given."""
    a, b, c = (generators / name for name in "abc")
    assert generate("--compare", a, b, "--class", "goldfish", "--count", 2, "--npz", "x.npz").code == 0
    grid = pixels("flowmo-out/grid.png")
    assert np.array_equal(grid[18 : 18 + 128 : 4, 0:128:4], pixels(f"flowmo-out/a/{FISH}-0000.png"))
    start = 2 * 132 - 4 + 24
    assert np.array_equal(grid[18 : 18 + 128 : 4, start : start + 128 : 4], pixels(f"flowmo-out/b/{FISH}-0000.png"))
    assert Path("x-a.npz").is_file()
    assert Path("x-b.npz").is_file()
    other = ["--tokenizer", generators / "other.safetensors"]
    assert generate(*other, "--compare", a, c, "--class", 0, "--count", 1, "--out", "ac").code == 0
    assert generate("--compare", a, c, "--class", 0, "--count", 1, "--out", "no").code == 2
    assert generate("--generator", c, *other, "--class", 0, "--count", 1, "--out", "c", tokenizer=False).code == 0
    assert np.array_equal(pixels(f"c/{FISH}-0000.png"), pixels(f"ac/c/{FISH}-0000.png"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--generator", "a", "--class", "golfish"], "did you mean 0 'goldfish'"),
        (["--generator", "a", "--class", "3"], "there is no class 3; the generator knows 0 to 2"),
        (["--generator", "d", "--class", "goldfish"], "no names of classes"),
        (["--generator", "c"], "give the tokenizer that made its shards"),
        (["--generator", "a", "--temperature", "-1"], "temperature must be at least 0"),
        (["--generator", "a", "--no-pictures"], "nothing to write"),
        (["--generator", "a", "--any-class", "--class", "0"], "either --class or --any-class"),
        (["--generator", "other.safetensors"], "not of a generator"),
        (["--generator", "missing"], "no generator at"),
        (["--compare", "a", "d"], "other classes"),
        (["--class", "0"], "give the tokenizer that made its shards"),  # of the packaged generator
        (["--generator", "a", "--compare", "a", "b"], "not allowed with argument"),
    ],
)
def test_wrong_use_of_generate(generate: Command, generators: Path, arguments: list[str], said: str) -> None:
    given = [generators / text if (generators / text).exists() or text == "missing" else text for text in arguments]
    result = generate(*given)
    assert result.code == 2
    assert said in result.err
    assert not list(Path().iterdir())


def test_nothing_is_overwritten(generate: Command, generators: Path) -> None:
    arguments = ["--generator", generators / "a", "--class", 0, "--count", 1]
    assert generate(*arguments).code == 0
    again = generate(*arguments)
    assert again.code == 2
    assert "2 results exist already" in again.err
    assert generate(*arguments, "--force").code == 0


def many(generators: Path, weights: Path, target: str, *more: object, processes: int = 1) -> list[str]:
    """The arguments of Python for 90 pictures in one file, each process on one thread."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes] if processes > 1 else []
    arguments = [
        "--generator",
        generators / "a",
        "--count",
        30,
        "--no-pictures",
        "--batch-size",
        2,
        "--npz",
        target,
        *more,
    ]
    arguments += ["--tokenizer", weights, "--mask-steps", 4, "--device", "cpu"]
    return [str(text) for text in (warm_python.python(), *launcher, "-m", "flowmo", "generate", *arguments)]


def places_of(parts: Path) -> list[int]:
    return sorted(int(path.stem) for path in parts.glob("*.npy"))


def kill_early(command: list[str], parts: Path, processes: int) -> None:
    """Start a command and kill it and its children once each of them has made two parts."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=warm_python.environment(), **pipes)
    deadline = time.monotonic() + 240
    while process.poll() is None and any(
        sum(place // 2 % processes == rank for place in places_of(parts)) < 2 for rank in range(processes)
    ):
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.01)
    generator = command[command.index("--generator") + 1]
    process.kill()  # torchrun itself first, so that it starts nothing again
    for pid in warm_python.started_with(generator):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()  # when all have ended


def run_whole(command: list[str]) -> None:
    result = subprocess.run(
        command, env=warm_python.environment(), capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def whole(generators: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The pictures and labels of :func:`many` by one process that nobody killed."""
    path = tmp_path_factory.mktemp("whole") / "whole.npz"
    run_whole(many(generators, weights, str(path)))
    with np.load(path) as file:
        return dict(file)


@pytest.mark.parametrize("processes", [(1, 1), (2, 2), (2, 1)])
def test_a_killed_npz_goes_on_where_it_was(
    flowmo: Command, generators: Path, weights: Path, whole: dict[str, np.ndarray], processes: tuple[int, int]
) -> None:
    """By one process, by two, and by one where two began: what is there is not made again, and all is the same."""
    parts = Path(".killed.npz.parts")
    kill_early(many(generators, weights, "killed.npz", processes=processes[0]), parts, processes[0])
    assert not Path("killed.npz").exists()
    made = places_of(parts)
    assert 2 * processes[0] <= len(made) < 45
    marked = made[-1]
    np.save(parts / f"{marked:08d}.npy", np.full((2, 32, 32, 3), 77, np.uint8))  # shows that it is not made again
    (parts / f"{made[0]:08d}.npy").write_bytes(b"damaged")  # and that this is
    run_whole(many(generators, weights, "killed.npz", processes=processes[1]))
    with np.load("killed.npz") as killed:
        same = np.ones(90, bool)
        same[marked : marked + 2] = False
        assert (killed["arr_0"][~same] == 77).all()
        assert (killed["arr_0"][same] == whole["arr_0"][same]).all()
        assert (killed["arr_1"] == whole["arr_1"]).all()
    assert sorted(p.name for p in Path().iterdir()) == ["killed.npz"]


def test_other_settings_begin_again(generate: Command, generators: Path) -> None:
    parts = Path(".samples.npz.parts")
    arguments = ["--generator", generators / "a", "--count", 2, "--no-pictures", "--batch-size", 6]

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    assert generate(*arguments, "--npz", "plain.npz").code == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many_images, "write_npz", stop)  # all parts are there, and the file is not
        assert generate(*arguments, "--npz", "samples.npz").code != 0
    (part,) = parts.glob("*.npy")
    np.save(part, np.full((6, 32, 32, 3), 77, np.uint8))
    shutil.copytree(parts, ".other.npz.parts")
    assert generate(*arguments, "--npz", "samples.npz").code == 0
    assert generate(*arguments, "--npz", "other.npz", "--guidance", 3).code == 0
    with np.load("samples.npz") as same, np.load("other.npz") as other, np.load("plain.npz") as plain:
        assert (same["arr_0"] == 77).all()
        assert not (other["arr_0"] == 77).all()
        assert not (other["arr_0"] == plain["arr_0"]).all()


def test_several_processes_share_one_file_alone(
    generate: Command, generators: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowmo.training.World.join", lambda device: World(1, 2))
    result = generate("--generator", generators / "a", "--class", 0)
    assert result.code == 2
    assert "give --npz FILE" in result.err


def test_a_file_that_another_process_makes(generate: Command, generators: Path) -> None:
    with only_one(Path(".samples.npz.lock")) as alone:
        assert alone
        result = generate("--generator", generators / "a", "--count", 1, "--no-pictures", "--npz", "samples.npz")
    assert result.code == 2
    assert "another process writes samples.npz" in result.err


def test_parts_of_another_batch_size_are_taken(
    generate: Command, generators: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures that are missing are made in batches of the new size; single pictures are those of the file."""
    arguments = ("--generator", generators / "a", "--count", 3, "--npz", "samples.npz", "--force")
    assert generate(*arguments, "--batch-size", 2).code == 0
    with np.load("samples.npz") as file:
        first = file["arr_0"].astype(int)
    parts, make, asked = Path(".samples.npz.parts"), many_images._make, []

    def stop(source: object, order: object, places: range, path: Path) -> None:
        asked.append(places)
        if places.start == 4:
            raise KeyboardInterrupt
        make(source, order, places, path)

    monkeypatch.setattr(many_images, "_make", stop)
    assert generate(*arguments, "--batch-size", 2).code != 0
    assert len(list(parts.glob("*.npy"))) == 2
    asked.clear()
    monkeypatch.setattr(many_images, "_make", lambda *a: asked.append(a[2]) or make(*a))
    assert generate(*arguments, "--batch-size", 3).code == 0
    assert asked == [range(4, 6), range(6, 9)]
    with np.load("samples.npz") as file:
        assert np.abs(file["arr_0"].astype(int) - first).max() <= 1
        assert np.array_equal(file["arr_0"][3], pixels(f"flowmo-out/{DOG}-0000.png"))
    assert not list(Path().glob(".samples*"))


def test_damaged_notes_begin_again(generate: Command, generators: Path) -> None:
    arguments = ["--generator", generators / "a", "--count", 2, "--no-pictures", "--npz", "samples.npz"]
    assert generate(*arguments).code == 0
    with np.load("samples.npz") as file:
        whole = file["arr_0"]
    parts = Path(".samples.npz.parts")
    for text in ('{"settings": 7}', "{", "[]"):
        Path("samples.npz").unlink()
        parts.mkdir()
        np.save(parts / "00000000.npy", np.full_like(whole, 77))
        (parts / "job.json").write_text(text)
        assert generate(*arguments).code == 0
        with np.load("samples.npz") as file:
            assert (file["arr_0"] == whole).all()


def test_info_about_a_generator(flowmo: Command, generators: Path) -> None:
    assert flowmo("info", PACKAGED_GENERATOR, "--json", model=False).json["tokenizer"] == f"{load().fingerprint():08x}"
    content = flowmo("info", generators / "a" / "model.safetensors", "--json", model=False).json
    assert content["what"] == "generator"
    assert content["classes"] == CLASSES
    assert (content["sequence_length"], content["vocabulary"]) == (32, 512)
    assert "Labrador" in flowmo("info", generators / "a", model=False).out
