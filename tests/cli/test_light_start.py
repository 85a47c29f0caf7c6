"""What a command imports before it does anything: no more than it needs."""

from __future__ import annotations

import json
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
import json, sys
from flowmo.cli.main import main
for words in sys.argv[1:]:
    code = main(json.loads(words))
    print("loaded", code, *[name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""


def loaded(*commands: list[str]) -> list[tuple[int, set[str]]]:
    """Run commands one after the other in one process: the code of each, and what is heavy and imported by then."""
    words = [json.dumps(command) for command in commands]
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(heavy=[*HEAVY, "flowmo.data"]), *words],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split() for line in result.stderr.splitlines()]
    return [(int(line[1]), set(line[2:])) for line in lines if line[:1] == ["loaded"]]


def test_without_a_command_not_even_pytorch_is_imported() -> None:
    codes: list[tuple[list[str], int]] = [
        (["--version"], 0), (["--help"], 0), ([], 2), (["tokenise"], 2), (["--unknown"], 2)
    ]  # fmt: skip
    assert loaded(*(words for words, _ in codes)) == [(code, set()) for _, code in codes]


def test_light_commands_import_pytorch_and_nothing_else_that_is_heavy(tmp_path: Path) -> None:
    """What a model is, and a token file, is told without a compiler and without the readers of data sets."""
    import torch

    from flowmo.codec import TokenFile, write_file
    from flowmo.presets import tiny
    from flowmo.tokenizer import FlowMo

    model = FlowMo(tiny())
    side = tiny().image_size
    write_file(tmp_path / "a.flowmo", TokenFile(model.tokenize(torch.zeros(1, 3, side, side)), 1, "crop", (9, 9)))
    told = [["info"], ["info", "--help"], ["info", str(tmp_path / "a.flowmo")]]
    found = loaded(*told, *([name, "--help"] for name in ("tokenize", "detokenize", "reconstruct")))
    assert found[:3] == [(0, {"torch"})] * 3
    assert [(code, names - {"flowmo.data"}) for code, names in found[3:]] == [(0, {"torch"})] * 3


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
