"""The bar of a run on a terminal: shown there, with speed and time left, and nowhere else."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

import warm_python

PROGRAM = """
import time
from flowmo.training.monitoring.progress import Bar
bar = Bar(1000, 200, time.monotonic() + 90)
said = bar.around(print)
for _ in range(5):
    bar.advance(100)
    time.sleep(0.15)
said("a line")
bar.close()
"""


def command() -> list[str]:
    return [warm_python.python(), "-c", PROGRAM]


def test_a_terminal_has_a_bar() -> None:
    fcntl, pty, struct, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "struct", "termios"))
    pytest.importorskip("tqdm")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))  # a terminal without a width has no bar
    process = subprocess.Popen(command(), env=warm_python.environment(), stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux says so when the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert re.search(rb"[3-7]00/1000", shown)
    assert b"images/s" in shown
    assert b"stops in 1:" in shown
    assert b"a line" in shown


def test_a_file_has_none() -> None:
    environment = warm_python.environment()
    result = subprocess.run(command(), env=environment, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "a line\n", "")
