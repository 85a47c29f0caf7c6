"""``flowmo`` and ``python -m flowmo``; the latter works from a source tree without installation."""

import signal
import sys


def run() -> int:
    """Run a command and return its exit code; Ctrl-C ends it without a traceback while it loads and ends, too."""
    try:
        from .cli.main import main

        return main()
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(run())
