"""A run's log with lines that are broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowmo.training import Log
from flowmo.training.monitoring.early_stopping import DISTANCE, validations_of
from flowmo.training.monitoring.logs import duration

WHOLE = f'{{"images": 8, "{DISTANCE}": 0.5}}'.encode()
BROKEN = [b"\xff\xfe", WHOLE.replace(b"images", b"im\xffges"), WHOLE[:-3], b"[" * 5000, b"3", b"null"]


@pytest.mark.parametrize("line", BROKEN)
def test_a_broken_line_is_dropped_and_the_others_stay(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join([WHOLE, line, WHOLE.replace(b"8", b"16"), b""]))
    assert [check["images"] for check in validations_of(path)] == [8, 16]
    Log(tmp_path, resumed_at=8, tensorboard=False).close()
    assert path.read_bytes() == WHOLE + b"\n"


def test_numbers_keep_their_digits(tmp_path: Path) -> None:
    text = '{"images": 8, "loss": 0.1234567890123456789, "rate": 1e-07, "none": NaN, "name": "é"}\n'
    (tmp_path / "log.jsonl").write_text(text)
    Log(tmp_path, resumed_at=8, tensorboard=False).close()
    once = (tmp_path / "log.jsonl").read_text()
    Log(tmp_path, resumed_at=8, tensorboard=False).close()
    assert (tmp_path / "log.jsonl").read_text() == once
    assert "0.12345678901234568" in once


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.013, "0.013 s"), (2.62, "2.6 s"), (61.0, "61 s"), (125.0, "2.08 min"), (5730.0, "1.59 h"), (86400.0, "24 h")],
)
def test_times_are_said_in_the_unit_of_their_size(seconds: float, said: str) -> None:
    assert duration(seconds) == said
