"""Processes that decode batches: the same batches as without them, a clear word when one dies, none left behind."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

import warm_python
from flowmo import samples
from flowmo.data import BatchLoader, FileSource, ImageSource, open_images, workers
from flowmo.errors import DataError

PHOTOS = samples.paths()[0].parent
PROGRAM = """
import multiprocessing, sys, time
from flowmo.data import BatchLoader, open_images
batches = iter(BatchLoader(open_images(sys.argv[1]), 4, 32, seed=0, workers=2))
next(batches)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def source() -> ImageSource:
    return open_images(PHOTOS)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # where nobody waits for it


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_close_ends_the_processes_and_the_iterator(source: ImageSource) -> None:
    loader = BatchLoader(source, 6, 32, seed=0, workers=2)
    iterator = iter(loader)
    next(iterator)
    assert len(multiprocessing.active_children()) == 2
    loader.close()
    assert multiprocessing.active_children() == []
    assert next(iterator, None) is None
    loader.close()


@pytest.mark.parametrize(("count", "wait"), [(2, 0.0), (1, 1.0)], ids=["at work", "with batches ready"])
def test_a_killed_worker_is_an_error_and_no_wait_for_ever(source: ImageSource, count: int, wait: float) -> None:
    with BatchLoader(source, 4, 32, seed=0, workers=count) as loader:
        batches = iter(loader)
        next(batches)
        time.sleep(wait)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=r"ended unexpectedly.*fewer workers"):
            list(islice(batches, 100))
    assert multiprocessing.active_children() == []


def test_a_killed_worker_does_not_interrupt_what_the_main_process_does(source: ImageSource) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    with BatchLoader(source, 4, 32, seed=0, workers=1) as loader:
        next(iter(loader))
        assert signal.getsignal(signal.SIGCHLD) == before


def test_workers_leave_requests_to_stop_to_the_main_process(source: ImageSource) -> None:
    with BatchLoader(source, 4, 32, seed=5, workers=0) as loader:
        expected = [batch.indices for batch in islice(loader, 20)]
    with BatchLoader(source, 4, 32, seed=5, workers=2) as loader:
        batches = iter(loader)
        found = [next(batches).indices]
        for child in multiprocessing.active_children():
            for number in (signal.SIGTERM, signal.SIGINT):
                os.kill(child.pid, number)  # type: ignore[arg-type]
        found += [batch.indices for batch in islice(batches, 19)]
    assert found == expected


@pytest.mark.skipif(workers.START_METHOD != "fork", reason="changes what a forked worker does first")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_before_a_worker_ignores_it(
    source: ImageSource, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    prepare = workers._prepare

    def late(*arguments: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(0.2)
        prepare(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(workers, "_prepare", late)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with BatchLoader(source, 4, 32, seed=5, workers=2) as loader:
        assert [len(batch) for batch in islice(loader, 5)] == [4] * 5
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


def test_the_end_of_the_interpreter_needs_no_module() -> None:
    program = PROGRAM + "import atexit\ndel atexit.unregister, atexit.register\n"
    command = [sys.executable, "-c", program, str(PHOTOS), "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc whether processes live")
def test_workers_end_with_a_killed_main_process() -> None:
    command = [warm_python.python(), "-c", PROGRAM, str(PHOTOS), "60"]
    with subprocess.Popen(command, env=warm_python.environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        children = [int(word) for word in process.stdout.readline().split()]
        assert len(children) == 2
        assert all(map(alive, children))
        process.kill()
    assert within(10, lambda: not any(map(alive, children)))


def test_an_abandoned_loader_does_not_keep_the_interpreter() -> None:
    command = [sys.executable, "-c", PROGRAM, str(PHOTOS), "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    children = [int(word) for word in result.stdout.split()]
    assert within(5, lambda: not any(map(alive, children)))


def test_our_errors_arrive_in_their_own_words(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    messages = []
    for count in (0, 2):
        with (
            BatchLoader(open_images(tmp_path), 4, 32, seed=0, workers=count) as loader,
            pytest.raises(DataError, match=r"in a row.*a\.png") as caught,
        ):
            next(iter(loader))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "Traceback" not in messages[1]


class Faulty(FileSource):
    """Files of which none has a class, though labels were promised."""

    def label(self, index: int) -> int:
        return {}[index]  # type: ignore[return-value]


def test_errors_of_a_program_are_not_swallowed() -> None:
    source = Faulty(PHOTOS, [path.name for path in samples.paths()])
    with BatchLoader(source, 4, 32, seed=0, workers=1) as loader, pytest.raises(KeyError, match="in label"):
        next(iter(loader))


def test_the_global_random_state_is_left_alone(source: ImageSource) -> None:
    before = torch.get_rng_state()
    with BatchLoader(source, 4, 32, seed=0, workers=1) as loader:
        next(iter(loader))
    assert torch.equal(torch.get_rng_state(), before)


def test_spawned_processes_give_the_same(source: ImageSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "START_METHOD", "spawn")
    with BatchLoader(source, 4, 32, seed=0, flip=True, workers=1) as loader:
        spawned = list(islice(loader, 3))
    with BatchLoader(source, 4, 32, seed=0, flip=True, workers=0) as loader:
        for one, other in zip(spawned, loader, strict=False):
            assert one.indices == other.indices
            assert torch.equal(one.images, other.images)


def test_every_source_can_be_sent_to_a_process(tmp_path: Path) -> None:
    import numpy as np

    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    photos = samples.paths()
    np.save(tmp_path / "a.npy", np.stack([np.asarray(Image.open(p).convert("RGB")) for p in photos]))
    pq.write_table(pa.table({"image": [p.read_bytes() for p in photos]}), tmp_path / "a.parquet")
    for path in (PHOTOS, tmp_path / "a.npy", tmp_path / "a.parquet"):
        source = open_images(path)
        copy = pickle.loads(pickle.dumps(source))
        assert copy.describe() == source.describe()
        assert copy[5].tobytes() == source[5].tobytes()
