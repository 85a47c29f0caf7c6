"""What one process of a run wants and all must do alike: stop, save, report broken images."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .distributed import World


class Signals(NamedTuple):
    """What one process wants, or what all have agreed on: what one wants, all do."""

    stop: bool = False  # SIGTERM or SIGINT came
    deadline: bool = False  # the time limit is over
    save: bool = False  # a checkpoint is due
    broken: bool = False  # the batch had images that could not be read
    not_finite: bool = False  # the loss or the gradient of this step is not finite

    def agreed(self, world: World) -> Signals:
        """Return the signals that any process has. Every process must ask, once a step."""
        return Signals(*map(bool, world.largest(list(map(float, self)))))


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Give a list that SIGTERM or SIGINT makes non-empty; a second one interrupts at once. Main thread only."""
    requests: list[int] = []

    def note(number: int, _frame: object) -> None:
        if requests:
            raise KeyboardInterrupt
        requests.append(number)

    try:
        old = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: nothing to listen to
        yield requests
        return
    try:
        yield requests
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
