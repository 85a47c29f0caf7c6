"""What a shell and a file system put around a command: closed streams, odd names, Ctrl-C, misspelt words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import warm_python
from flowmo import samples
from flowmo.cli.main import main
from flowmo.codec import Shard, read_file, read_shard, write_shard
from flowmo.quantize.tokens import Tokens
from flowmo.text import PlainStream, plain
from flowmo.weights import load

FLOWMO = [sys.executable, "-m", "flowmo"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def picture(path: Path | str | bytes) -> None:
    Path(os.fsdecode(path)).parent.mkdir(parents=True, exist_ok=True)
    with Image.open(samples.paths()[0]) as image, open(path, "wb") as file:
        image.resize((64, 64)).convert("RGB").save(file, "PNG")


def shard_of(names: list[str], path: str) -> None:
    model = load()
    indices = torch.zeros(len(names), 16, 18, dtype=torch.int64)
    write_shard(path, Shard(Tokens(indices, 1, (64, 64)), names, None, model.fingerprint(), "crop", None))


@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_silent(closing: str) -> None:
    shard_of(["a"], "s.shard")
    result = subprocess.run(["sh", "-c", f"{' '.join(FLOWMO)} info s.shard {closing}"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr


def test_names_as_long_as_a_file_system_takes(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["n" * length + ".jpg" for length in (225, 230, 236, 243, 251)] + ["é" * 125 + ".jpg", "zz.jpg"]
    for name in names:
        picture(f"d/{name}")
    assert main(["tokenize", "d", "--out", "o"]) == 0
    assert len(list(Path("o").iterdir())) == len(names)
    assert Path("o/zz.flowmo").exists()
    assert main(["detokenize", "o", "--out", "back"]) == 0
    assert len(list(Path("back").iterdir())) == len(names)
    assert main(["reconstruct", "d", "--out", "r"]) == 0
    capsys.readouterr()


def test_long_and_hostile_names_of_a_shard(capsys: pytest.CaptureFixture[str]) -> None:
    names = [
        "a.jpg",
        "n" * 300 + ".jpg",
        "n" * 300 + ".png",
        "z.jpg",
        "\x1b]0;OWNED\x07\x1b[2Jx\ny.jpg",
        "\u202egpj.exe",
    ]
    shard_of(names, "s.shard")
    assert main(["detokenize", "s.shard", "--out", "o"]) == 0
    assert len(list(Path("o").iterdir())) == len(names)
    assert main(["info", "s.shard"]) == 0
    shard_of(names[-2:], "e.shard")
    assert main(["info", "e.shard"]) == 0
    shown = capsys.readouterr()
    assert not {"\x1b", "\x07", "\u202e"} & set(shown.out + shown.err)
    assert r"\x1b]0;OWNED\x07\x1b[2Jx\x0ay.jpg" in shown.out


@pytest.mark.parametrize("command", ["tokenize", "reconstruct", "detokenize", "info"])
def test_errors_show_no_escape_sequences(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = "d/\x1b[31mred\n.jpg"
    Path("d").mkdir()
    Path(name).write_bytes(b"FMO no picture")
    assert main([command, name] + ["--out", "o"] * (command != "info")) in (1, 2)
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert r"\x1b[31mred" in shown.err


def test_plain_text() -> None:
    assert plain("a\x1b\n\t\r\x9b\u2066é") == r"a\x1b\x0a\x09\x0d\x9b\u2066é"
    with open(os.devnull, "w") as stream:
        assert PlainStream(stream).fileno() == stream.fileno()


@pytest.mark.parametrize("name", ["~x.jpg", "~", "~nobody-of-that-name/x.jpg"])
def test_a_tilde_that_is_no_user_is_a_name(name: str) -> None:
    if name == "~":
        picture("d/~")
        assert main(["tokenize", "./d/~", "--out", "o"]) == 0
        return
    picture(name)
    assert main(["tokenize", name, "--out", "o"]) == 0
    assert len(list(Path("o").rglob("*.flowmo"))) == 1
    assert main(["info", str(next(Path("o").rglob("*.flowmo")))]) == 0
    assert main(["tokenize", "a", "--model", name, "--out", "o"]) == 2


def test_names_that_are_no_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(3):
        picture(b"d/\xff\xfe" + str(k).encode() + b".png")
    assert main(["tokenize", "d", "--out", "o"]) == 0
    assert main(["tokenize", "d", "--shard", "s.shard"]) == 0
    assert len(read_shard("s.shard").names) == 3
    assert main(["detokenize", "s.shard", "--out", "back"]) == 0
    assert main(["reconstruct", "d", "--out", "r"]) == 0
    assert main(["evaluate", "flowmo-mini", "d", "--metrics", "psnr", "--out", "e"]) == 0
    assert main(["gallery", "d", "--out", "g.html"]) == 0
    capsys.readouterr()


def test_two_codings_are_equal_byte_for_byte() -> None:
    for k in range(4):
        picture(f"d/{k % 2}/{k}.png")
    for k in range(3):
        assert main(["tokenize", "d", "--labels", "--out", f"{k}.shard"]) == 0
    assert len({Path(f"{k}.shard").read_bytes() for k in range(3)}) == 1
    assert Path("0.shard").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


def test_a_pipe_is_no_token_file() -> None:
    os.mkfifo("p.flowmo")
    for command in (["info", "p.flowmo"], ["detokenize", "p.flowmo", "--out", "o"]):
        words = [warm_python.python(), "-m", "flowmo", *command]
        result = subprocess.run(words, env=warm_python.environment(), capture_output=True, text=True, timeout=60)
        assert result.returncode in (1, 2), command
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
def test_a_command_that_is_stopped_says_what_is_kept(number: signal.Signals, code: int) -> None:
    """By Ctrl-C, by a scheduler, and by a terminal that closes."""
    picture("d/0.png")
    for k in range(1, 3000):  # more than a busy machine can be late by
        os.link("d/0.png", f"d/{k}.png")
    process = subprocess.Popen(
        [warm_python.python(), "-m", "flowmo", "tokenize", "d", "--batch-size", "1", "--out", "o"],
        env=warm_python.environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # ignored where tests run in the background
    )
    deadline = time.monotonic() + 90
    while not Path("o").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert "stopped; every result that was finished is kept" in said
    for file in Path("o").iterdir():
        assert file.suffix == ".flowmo"
        read_file(file)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("tokenise", "tokenize"),
        ("encode", "tokenize"),
        ("decode", "detokenize"),
        ("eval", "evaluate"),
        ("trian", "train"),
    ],
)
def test_misspelt_commands_suggest_the_likely_one(typed: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([typed, "x"]) == 2
    assert f"no command '{typed}'; did you mean '{meant}'?" in capsys.readouterr().err


@pytest.mark.parametrize("pictures", [2, 1])
def test_one_flowmo_file_is_no_folder(pictures: int, capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(pictures):
        picture(f"d/{k}.png")
    assert main(["tokenize", "d", "--out", "one.flowmo"]) == 2
    assert ".shard" in capsys.readouterr().err
    assert not Path("one.flowmo").exists()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            ["reconstruct", "d", "--num-steps", "4"],
            "flowmo reconstruct: there is no flag --num-steps; did you mean --steps?",
        ),
        (["tokenize", "d", "--forse"], "there is no flag --forse; did you mean --force?"),
        (["bench", "decode", "--repeat=2"], "there is no flag --repeat; did you mean --repeats?"),
        (["reconstruct", "d", "--count", "4"], "there is no flag --count; '--help' lists them"),
        (["train", "a", "b", "c d"], "flowmo train: too many names: 'c d'"),
    ],
)
def test_unknown_flags_suggest_the_likely_one(typed: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("reconstruct d --steps -1", "flowmo reconstruct: --steps: '-1' is not a whole number of at least 1\n"),
        ("evaluate", "flowmo evaluate: missing: DATA; 'flowmo evaluate --help' shows what goes where\n"),
        ("fit-transform a", "flowmo fit-transform: missing: --out/-o; 'flowmo fit-transform --help' shows what goes"),
        ("bench", "flowmo bench: say which: encode, decode, device, evaluate, train\n"),
        ("info --pth", "flowmo info: --pth: expected at least one argument\n"),
        ("tokenize d --out", "flowmo tokenize: --out/-o: expected a value after it\n"),
    ],
)
def test_wrong_words_get_one_line(typed: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed.split()) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(said)
    assert printed.count("\n") == 1


def test_the_page_says_that_it_is_coming(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", "--model", "nothing"]) == 2
    assert capsys.readouterr().err.startswith("flowmo app: loading PyTorch\n")


def test_help_is_a_command_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    assert "commands:" in capsys.readouterr().out
    assert main(["help", "info"]) == 0
    assert "usage: flowmo info" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("when", "code"),
    [
        ("class Finder:\n    @staticmethod\n    def find_spec(name, *_):\n        if name == 'flowmo.cli.main':\n"
         "            raise KeyboardInterrupt\nsys.meta_path.insert(0, Finder)", 130),
        ("import atexit\natexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))", -signal.SIGINT),
    ],
    ids=["while it loads", "while it ends"],
)  # fmt: skip
def test_an_interruption_before_and_after_a_command_has_no_traceback(when: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import os, signal, sys\n{when}\n")
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "flowmo", "--version"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "KeyboardInterrupt" not in done.stderr


@pytest.mark.parametrize("module", ["numpy.lib._polynomial_impl", "torch.nn.functional", "flowmo.tokenizer"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_a_signal_while_modules_are_loaded_is_not_lost(module: str, number: int, code: int, tmp_path: Path) -> None:
    """PyTorch loads NumPy, and goes on without it where that is interrupted; so the signal waits."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Finder:\n    @staticmethod\n    def find_spec(name, *_):\n"
        f"        if name == {module!r}:\n            os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Finder)\n"
    )
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "flowmo", "reconstruct", str(samples.paths()[0]), "--out", "o"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert "flowmo reconstruct: stopped" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("o").exists()
