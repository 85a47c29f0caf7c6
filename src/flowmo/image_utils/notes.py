"""Notes about images that are read, but not quite as they were meant: logged once a process, never an error."""

from __future__ import annotations

import logging
import threading

_LOG = logging.getLogger("flowmo.data")
_MOST_OF_A_KIND = 10
_lock = threading.Lock()
_said: dict[str, set[str]] = {}


def note(name: str, text: str) -> None:
    """Log a warning about the file ``name``: each file once, and the first ten files of each ``text`` by name.

    Without a program's own logging it is a line on the standard error output.
    """
    with _lock:
        names = _said.setdefault(text.partition(" (")[0], set())
        if name in names or len(names) > _MOST_OF_A_KIND:
            return
        names.add(name)
        last = len(names) > _MOST_OF_A_KIND
    _LOG.warning("%s: %s", ascii(name)[1:-1], "further files of this kind are not named: " + text if last else text)
