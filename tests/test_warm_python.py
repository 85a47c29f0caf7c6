"""The interpreter that tests start processes with is one: words, streams, environment, exit codes and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import warm_python

PROGRAM = """
import os, sys
print(sys.argv, os.getcwd(), os.environ["COLOUR"], sys.stdin.read(), flush=True)
print(os.getppid(), file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.parametrize("way", ["-c", "file", "-m"])
def test_words_streams_environment_and_exit_code(tmp_path: Path, way: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    words = {"-c": ["-c", PROGRAM], "file": [str(tmp_path / "program.py")], "-m": ["-m", "program"]}[way]
    environment = warm_python.environment() | {"COLOUR": "red"}
    done = subprocess.run(
        [warm_python.python(), *words, "a b"], input="in", env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    first = str(tmp_path / "program.py") if way != "-c" else "-c"
    assert done.stdout == f"{[first, 'a b']} {tmp_path} red in\n"
    assert done.returncode == 3


def test_an_error_has_a_traceback_and_code_1() -> None:
    done = subprocess.run([warm_python.python(), "-c", "1 / 0"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signals_reach_the_process_itself(number: signal.Signals) -> None:
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    process = subprocess.Popen([warm_python.python(), "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.send_signal(number)
    assert process.wait(timeout=30) == -number
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_processor_time_is_counted() -> None:
    if warm_python.python() != sys.executable:
        before = warm_python.processor_seconds()
        program = "import time\nwhile time.process_time() < 1: pass"
        subprocess.run([warm_python.python(), "-c", program], check=True)
        assert 0.5 < warm_python.processor_seconds() - before < 3


def test_the_server_ends_with_the_process_that_asked_for_it() -> None:
    program = f"import sys; sys.path.insert(0, {str(Path(warm_python.__file__).parent)!r})\n"
    program += "import warm_python; warm_python.IMPORTED = ()\n"
    program += "print(warm_python.python()); print(warm_python._folder.process.pid)"
    if warm_python.python() != sys.executable:
        command = [sys.executable, "-c", program]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        gone = time.monotonic() + 30
        while Path(f"/proc/{shown[1]}").exists() and time.monotonic() < gone:
            time.sleep(0.05)
        assert not Path(f"/proc/{shown[1]}").exists()
        assert not Path(shown[0]).exists()
