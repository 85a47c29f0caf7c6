"""The bar that a run shows on a terminal: how far it is, how fast, and how long it still takes."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any


class Bar:
    """A bar on stderr where that is a terminal and tqdm is installed; nothing else anywhere.

    images: of the whole run. seen: where it goes on. until: when it is to stop, by ``time.monotonic()``.
    """

    def __init__(self, images: int, seen: int = 0, until: float = math.inf) -> None:
        self.bar: Any = None
        self.until = until
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:  # a machine with the core alone
                return
            self.bar = tqdm(total=images, initial=min(seen, images), unit=" images", dynamic_ncols=True, leave=False)
            self.advance(0)

    def advance(self, images: int) -> None:
        """Show that so many more images were seen, and how long it is to the time limit, if there is one."""
        if self.bar is not None:
            if self.until < math.inf:
                left = max(0, round(self.until - time.monotonic()))
                self.bar.set_postfix_str(f"stops in {left // 60}:{left % 60:02}", refresh=False)
            self.bar.update(images)

    def around(self, say: Callable[[str], None]) -> Callable[[str], None]:
        """Return ``say`` with the bar out of its way."""

        def said(line: str) -> None:
            if self.bar is not None:
                self.bar.clear()
            say(line)
            if self.bar is not None:
                self.bar.refresh()

        return said

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
