"""``flowmo`` and ``python -m flowmo``; the latter works from a source tree without installation."""

import os
import signal
import sys


def run() -> int:
    """Run a command and return its exit code; Ctrl-C ends it without a traceback while it loads and ends, too.

    SIGTERM and SIGHUP, as schedulers and a terminal that closes send them, end a command as Ctrl-C does, with 128 and
    their number as exit code.
    """
    received: list[int] = []
    process = os.getpid()

    def stop(number: int, _frame: object) -> None:
        if os.getpid() != process:  # a process that this one forked ends as it would have
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        received.append(number)
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores it, and so do we
            signal.signal(number, stop)
    try:
        from .cli.main import main

        code = main()
    except KeyboardInterrupt:
        code = 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return 128 + received[0] if received and code == 130 else code


if __name__ == "__main__":
    sys.exit(run())
