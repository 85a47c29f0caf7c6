"""Processes that decode training batches ahead, by PyTorch's DataLoader: orderly, and gone when the run is gone."""

from __future__ import annotations

import atexit
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_bool
from functools import partial
from multiprocessing.sharedctypes import RawValue
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import DataError, FlowMoError
from .batch import Batch
from .batch_sampler import BatchSampler

# Forked workers start in milliseconds, share the list of a million images with the run, and need no main module that
# can be imported twice. What makes forking beside threads dangerous, they do not do: no parallel regions (PyTorch sets
# them to one thread), no device, no lock of another library. Where forking itself is unsafe (macOS) or absent
# (Windows) they are spawned, and everything they need is pickled.
START_METHOD = "fork" if sys.platform.startswith("linux") else "spawn"
_REQUESTS = (signal.SIGINT, signal.SIGTERM)
_BATCHES_AHEAD = 2  # of each worker
_LOOK_EVERY = 0.2  # seconds


class BatchStream:
    """The batches of a batch sampler from a position on, in order, decoded ahead by ``workers`` processes.

    With 0 of them it decodes here, when batches are asked for. Every number of workers gives the same batches.

    ``next`` raises what the batch sampler raises, and DataError when a worker was killed. Workers leave Ctrl-C and
    SIGTERM to the main process, and end with it, even when it is killed.
    """

    def __init__(self, sampler: BatchSampler, start: int, workers: int) -> None:
        self._closing = RawValue(c_bool, False)  # without a lock, which a killed worker would keep
        positions = _Positions(start, sampler.step)
        self._answers: Iterator[Batch | FlowMoError]
        if workers == 0:
            self._answers = map(_Answers(sampler).__getitem__, positions)
            return
        context = multiprocessing.get_context(START_METHOD)
        with _requests_held(), _child_signals_kept(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # more workers than processors are the user's choice
            self._answers = iter(
                DataLoader(
                    _Answers(sampler),
                    batch_size=None,
                    sampler=positions,
                    num_workers=workers,
                    collate_fn=_unchanged,
                    pin_memory=torch.cuda.is_available(),
                    prefetch_factor=_BATCHES_AHEAD,
                    worker_init_fn=partial(_prepare, os.getpid(), self._closing),
                    multiprocessing_context=context,
                    generator=torch.Generator(),  # else it draws a seed from the global one
                )
            )
        _STREAMS.add(self)

    def __next__(self) -> Batch:
        answer: Batch | FlowMoError
        try:
            answer = next(self._answers)
        except (RuntimeError, OSError, EOFError) as error:
            if not _is_death(error):
                raise
            reason = str(error).rstrip(".") if isinstance(error, RuntimeError) else type(error).__name__
            answer = DataError(
                f"a process that decodes images ended unexpectedly ({reason}); if memory or shared memory (/dev/shm) "
                "ran out, use fewer workers; with 0 the main process decodes"
            )
        if isinstance(answer, FlowMoError):
            raise answer
        return answer

    def close(self) -> None:
        """End the workers and wait until they have gone."""
        # Also run when the interpreter ends, with modules half gone: nothing here needs one.
        self.tell_workers()
        self._answers = iter(())

    def tell_workers(self) -> None:
        """Have the workers end; does not wait for it."""
        self._closing.value = True


_STREAMS: weakref.WeakSet[BatchStream] = weakref.WeakSet()


@atexit.register
def _tell_all() -> None:
    """Have the workers of all streams end, for those that nobody closes."""
    for stream in list(_STREAMS):
        stream.tell_workers()


class _Answers(Dataset[Batch | FlowMoError]):
    """Batches by their start, or our errors as values: those that are raised arrive as the text of a traceback."""

    def __init__(self, sampler: BatchSampler) -> None:
        self.sampler = sampler

    def __getitem__(self, start: int) -> Batch | FlowMoError:
        try:
            return self.sampler.batch(start)
        except FlowMoError as error:
            return error


class _Positions(Sampler[int]):
    def __init__(self, start: int, step: int) -> None:
        self.start, self.step = start, step

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start, self.step)


def _is_death(error: Exception) -> bool:
    """Return whether asking for a batch failed because a worker was killed.

    DataLoader noticed, or the pictures could not be fetched from it any more. What a worker itself raised comes as the
    same types.
    """
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker (pid")
    return "in DataLoader worker process" not in str(error)


def _unchanged(answer: Any) -> Any:
    return answer


def _prepare(main: int, closing: Any, _worker: int) -> None:
    """Make a process a worker of process ``main``."""
    for number in _REQUESTS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _REQUESTS)  # what came meanwhile is ignored, too

    def leave() -> None:
        while os.getppid() == main and not closing.value:
            time.sleep(_LOOK_EVERY)
        os._exit(0)

    threading.Thread(target=leave, daemon=True).start()


@contextmanager
def _requests_held() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM while workers start, and deliver them once the workers have started.

    Workers start with both blocked, until they have learned to ignore them: in between, one of them would end the run.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _REQUESTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _child_signals_kept() -> Iterator[None]:
    """Put back, after the block, the handler of SIGCHLD that was there before it.

    DataLoader has a killed worker raise RuntimeError wherever the main process is, be it in the middle of writing a
    checkpoint. Without that, asking for the next batch finds out within five seconds.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
