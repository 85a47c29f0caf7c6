"""Processes that take turns as threads of one, for what they tell each other."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any


@dataclass
class Thread:
    """One of several processes, played by threads."""

    rank: int
    size: int
    barrier: threading.Barrier
    values: dict[int, Any]

    def gather(self, value: Any) -> list[Any]:
        self.values[self.rank] = value
        self.barrier.wait(60)
        found = [self.values[rank] for rank in range(self.size)]
        self.barrier.wait(60)
        return found

    def collect(self, value: Any) -> list[Any] | None:
        found = self.gather(value)
        return None if self.rank else found

    def share(self, value: Any) -> Any:
        return self.gather(value)[0]
