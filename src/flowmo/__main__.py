"""``flowmo`` and ``python -m flowmo``; the latter works from a source tree without installation."""

import os
import signal
import sys
import threading
import time
from types import FrameType

LONGEST_IMPORT = 20.0
"""Seconds that a signal waits at most for modules to be loaded."""


def run() -> int:
    """Run a command and return its exit code; Ctrl-C ends it without a traceback while it loads and ends, too.

    SIGTERM and SIGHUP, as schedulers and a terminal that closes send them, end a command as Ctrl-C does, with 128 and
    their number as exit code. What comes while modules are loaded waits until they are.
    """
    received: list[int] = []
    process, came = os.getpid(), float("inf")

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if os.getpid() != process:  # a process that this one forked ends as it would have
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        came = min(came, time.monotonic())
        if _importing(frame) and time.monotonic() < came + LONGEST_IMPORT:
            again = threading.Timer(0.02, signal.raise_signal, [number])
            again.daemon = True
            again.start()
            return
        received.append(number)
        raise KeyboardInterrupt

    usual = (signal.SIG_DFL, signal.default_int_handler)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) in usual:  # nohup ignores it, and so do we
            signal.signal(number, stop)
    try:
        from .cli.main import main

        code = main()
    except KeyboardInterrupt:
        code = 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return 128 + received[0] if received and code == 130 else code


def _importing(frame: FrameType | None) -> bool:
    """Return whether a module is being loaded. PyTorch, which loads NumPy, goes on where that is interrupted."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


if __name__ == "__main__":
    sys.exit(run())
