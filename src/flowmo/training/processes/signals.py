"""What one process of a run wants and all must do alike: stop, save, report broken images."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from .distributed import World


class Signals(NamedTuple):
    """What one process wants, or what all have agreed on: what one wants, all do."""

    stop: bool = False  # SIGTERM or SIGINT came
    deadline: bool = False  # the time limit is over
    save: bool = False  # a checkpoint is due
    broken: bool = False  # the batch had images that could not be read
    not_finite: bool = False  # the loss or the gradient of this step is not finite


class Exchange:
    """The one exchange of a step: what any process wants, and whether its numbers are finite in all of them.

    It is begun without waiting for a GPU, and read when the answer is there or needed. ``not_finite`` holds it on the
    device: 1 or 0, a float32 scalar, for what must not wait.
    """

    def __init__(self, signals: Signals, finite: Tensor, world: World) -> None:
        """Begin the exchange. Every process must call it, once a step.

        finite: a scalar on the world's device, whether this process's loss and gradient are finite.
        """
        wanted = torch.tensor(list(map(float, signals[:-1])))
        flags = torch.cat([wanted.to(finite.device, non_blocking=True), finite.logical_not().float().reshape(1)])
        world.largest_in_place(flags)
        self.not_finite = flags[-1]
        self.event = None
        self.answer = flags
        if flags.device.type == "cuda":
            self.answer = torch.empty(len(flags), pin_memory=True)
            self.answer.copy_(flags, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()

    def read(self) -> Signals:
        """Wait for the answer and return it."""
        if self.event is not None:
            self.event.synchronize()
        return Signals(*map(bool, self.answer.tolist()))


HANG_UP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""Windows has none."""


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Give a list that SIGTERM, SIGINT or SIGHUP makes non-empty; a second one interrupts at once. Main thread only.

    SIGHUP, which a terminal sends when it closes, perhaps beside another, is never the second; nohup's stays ignored.
    """
    requests: list[int] = []

    def note(number: int, _frame: object) -> None:
        if requests and number != HANG_UP:
            raise KeyboardInterrupt
        requests.append(number)

    numbers = [signal.SIGTERM, signal.SIGINT]
    if HANG_UP is not None and signal.getsignal(HANG_UP) != signal.SIG_IGN:
        numbers.append(HANG_UP)
    try:
        old = {number: signal.signal(number, note) for number in numbers}
    except ValueError:  # not the main thread: nothing to listen to
        yield requests
        return
    try:
        yield requests
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
