"""What a command imports before it does anything: no more than it needs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = [
    *("torch", "torch.distributed.checkpoint", "torch._dynamo", "sympy", "torch.utils.tensorboard"),
    *("matplotlib", "pyarrow", "scipy", "skimage", "pandas"),
]
PROGRAM = """
import sys
from flowmo.cli.main import main
code = main(sys.argv[1:])
print("loaded", code, *[name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""


def loaded(*words: str) -> tuple[int, set[str]]:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(heavy=HEAVY), *words], capture_output=True, text=True, check=True
    )
    last = result.stderr.splitlines()[-1].split()
    assert last[0] == "loaded"
    return int(last[1]), set(last[2:])


@pytest.mark.parametrize(
    ("words", "code"), [(["--version"], 0), (["--help"], 0), ([], 2), (["tokenise"], 2), (["--unknown"], 2)]
)
def test_without_a_command_not_even_pytorch_is_imported(words: list[str], code: int) -> None:
    assert loaded(*words) == (code, set())


@pytest.mark.parametrize("command", ["info", "tokenize", "detokenize", "reconstruct"])
def test_light_commands_import_pytorch_and_nothing_else_that_is_heavy(command: str) -> None:
    assert loaded(command, "--help") == (0, {"torch"})


def test_what_a_model_is_is_told_without_a_compiler() -> None:
    assert loaded("info") == (0, {"torch"})


def test_what_a_model_is_is_told_without_the_readers_of_data_sets() -> None:
    program = "import sys; from flowmo.cli.main import main; main(['info']); sys.exit('flowmo.data' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_a_token_file_is_told_without_one_too(tmp_path: Path) -> None:
    import torch

    from flowmo.codec import TokenFile, write_file
    from flowmo.presets import tiny
    from flowmo.tokenizer import FlowMo

    model = FlowMo(tiny())
    side = tiny().image_size
    write_file(tmp_path / "a.flowmo", TokenFile(model.tokenize(torch.zeros(1, 3, side, side)), 1, "crop", (9, 9)))
    assert loaded("info", str(tmp_path / "a.flowmo")) == (0, {"torch"})


@pytest.mark.skipif("FLOWMO_SLOW" not in os.environ, reason="a timing, which needs a quiet machine: set FLOWMO_SLOW=1")
def test_start_takes_little_longer_than_pytorch_itself() -> None:
    def fastest(program: str) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
            times.append(time.perf_counter() - start)
        return min(times)

    command = "import sys; from flowmo.cli.main import main; sys.exit(main(['info', '--help']))"
    assert fastest(command) < fastest("import torch") + 0.3
