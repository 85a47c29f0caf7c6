"""The log of a training that is evaluated as it goes: its lines come back, and no other file is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowmo.errors import ConfigError
from flowmo.evaluation.watch import WatchLog

LINE = {"images": 7, "sha256": "a", "psnr": 20.5}


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "results" / "run.jsonl"
    WatchLog(path).add(LINE)
    with path.open("a") as file:
        file.write('{"images": 9, "sh')
    log = WatchLog(path)
    assert log.lines == [LINE]
    log.add(LINE | {"images": 9})
    assert [line["images"] for line in WatchLog(path).lines] == [7, 9]
    assert (log.known("a", 2), log.known("a", 3), log.known("b", 1)) == (True, False, False)


def test_another_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text("a note\nwithout an end")
    with pytest.raises(ConfigError, match="something else than evaluations"):
        WatchLog(path)
    assert path.read_text() == "a note\nwithout an end"
