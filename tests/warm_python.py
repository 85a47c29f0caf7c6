"""A Python that has imported PyTorch already: each of its processes is a real one, of its own, that begins within a
moment instead of seconds. ``python()`` names a program that takes -m, -c or a file like the interpreter does.

A server imports what takes long, nothing of FlowMo, and forks for each process, which then runs like any other: its own
arguments, environment, folder and streams, its own exit code or signal. Killed, it ends a moment later: who kills it
gives it a pipe and waits for the end of that (``communicate``). With FLOWMO_SLOW=1 it is the plain interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import io
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

IMPORTED = (
    *("torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp", "torch.distributed.run"),
    *("torch.utils.data", "torch.utils.flop_counter", "torch.utils.tensorboard", "safetensors.torch"),
    *("matplotlib.figure", "scipy.linalg", "pandas", "filelock"),
    *(f"PIL.Image{name}" for name in ("Cms", "Draw", "Math", "Ops")),
    *(f"PIL.{name}ImagePlugin" for name in ("Avif", "Gif", "Jpeg", "Jpeg2K", "Mpo", "Png", "Ppm", "Tiff", "WebP")),
)
"""As far as they are there."""
PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys
words, variables = sys.argv[1:], dict(os.environ)
if words[:1] == ["-u"]:
    del words[0]
    variables["PYTHONUNBUFFERED"] = "1"
if not words or words[0] not in ("-m", "-c") and words[0].startswith("-"):
    os.execve({python!r}, [{python!r}, *words], variables)
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
content = json.dumps([words, variables, os.getcwd()]).encode()
socket.send_fds(server, [len(content).to_bytes(8, "big")], [0, 1, 2])
server.sendall(content)
pid = int.from_bytes(server.recv(8), "big")
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda number, _: os.kill(pid, number))
status = int.from_bytes(server.recv(8), "big")
if os.WIFSIGNALED(status):
    signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.WEXITSTATUS(status))
"""


@functools.cache
def _folder() -> Path:
    """Start the server of this process; return the folder of its socket, its program and its times."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, __file__, str(folder), *IMPORTED],
        env=environment,
        stdin=subprocess.PIPE,  # it ends when this process does
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.read(5) == b"ready"
    _folder.process = process  # type: ignore[attr-defined]
    program = folder / "python"
    program.write_text(PROGRAM.format(python=sys.executable, address=str(folder / "socket")))
    program.chmod(0o755)
    return folder


def python() -> str:
    """Return the path of an interpreter for processes that tests start."""
    if "FLOWMO_SLOW" in os.environ or not hasattr(os, "pidfd_open"):
        return sys.executable
    return str(_folder() / "python")


def environment() -> dict[str, str]:
    """Return the environment of such processes: this one's, FlowMo from this tree, torchrun's processes alike."""
    source = str(Path(__file__).parents[1] / "src")
    return os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1", "PYTHON": python(), "PYTHON_EXEC": python()}


def processor_seconds() -> float:
    """Return those of all processes by ``python()`` that have ended, with their children."""
    times = Path(python()).with_name("times")
    return sum(map(float, times.read_text().split())) if times.exists() else 0.0


def started_with(word: str) -> list[int]:
    """Return the processes that have this among their words, in the order of their start, torchrun itself left out."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = file.read_bytes().split(b"\0")
            if word.encode() in words and b"torch.distributed.run" not in words:
                found.append(int(file.parent.name))
    return sorted(found)


def serve(folder: Path, names: list[str]) -> None:
    """Import what is named, then fork for every connection until standard input ends."""
    for name in names:
        with contextlib.suppress(ImportError):
            __import__(name)
    libraries = sys.path[1:]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.write(1, b"ready")
    while True:
        if 0 in select.select([listener, 0], [], [])[0]:  # standard input has ended
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM):  # ignored where tests run in the background
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            words, streams = attend(connection, folder)
            end(functools.partial(run, words, streams, libraries))
        connection.close()


def attend(connection: socket.socket, folder: Path) -> tuple[list[str], list[int]]:
    """Return, in a process of its own, its words and streams; wait for it in this one, and kill it if nobody asks for
    it any more."""
    length, streams, _, _ = socket.recv_fds(connection, 8, 3)
    content, wanted = b"", int.from_bytes(length, "big")
    while len(content) < wanted:
        content += connection.recv(wanted - len(content))
    pid = os.fork()
    if pid == 0:
        connection.close()
        words, variables, place = json.loads(content)
        os.environ.clear()
        os.environ.update(variables)
        os.chdir(place)
        return words, streams
    for stream in streams:
        os.close(stream)
    connection.sendall(pid.to_bytes(8, "big"))
    ended = os.pidfd_open(pid)
    if ended not in select.select([connection, ended], [], [])[0]:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    with open(folder / "times", "a") as file:
        file.write(f"{usage.ru_utime + usage.ru_stime:.3f}\n")
    with contextlib.suppress(OSError):
        connection.sendall(status.to_bytes(8, "big"))
    os._exit(0)


def end(program: Callable[[], None]) -> NoReturn:
    """Run a program to its end and leave with its exit code. The libraries' modules are not torn down one by one."""
    code = 0
    try:
        program()
    except SystemExit as asked:
        code = asked.code if isinstance(asked.code, int) else 0 if asked.code is None else 1
        if isinstance(asked.code, str):
            print(asked.code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def run(words: list[str], streams: list[int], libraries: list[str]) -> None:
    """Do what the interpreter does with these words."""
    import numpy as np

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    plain = "PYTHONUNBUFFERED" in os.environ
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = io.FileIO(number, "wb", closefd=False)
        raw = file if plain else io.BufferedWriter(file)
        lines = number == 2 or os.isatty(number)
        errors = "backslashreplace" if number == 2 else "strict"
        setattr(sys, name, io.TextIOWrapper(raw, errors=errors, line_buffering=lines, write_through=plain))
    np.random.seed()
    more = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = ["", *more, *libraries]
    if (found := importlib.util.find_spec("sitecustomize")) and "sitecustomize" not in sys.modules:
        found.loader.exec_module(importlib.util.module_from_spec(found))  # type: ignore[union-attr]
    if words[0] == "-m":
        warnings.filterwarnings(
            "ignore", ".*found in sys.modules after import", RuntimeWarning
        )  # it was imported ahead
        sys.argv[:] = ["-m", *words[2:]]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv[:] = ["-c", *words[2:]]
        exec(words[1], {"__name__": "__main__"})
    else:
        sys.argv[:] = words
        sys.path[0] = str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2:])
    shutil.rmtree(sys.argv[1])
