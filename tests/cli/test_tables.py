"""Tables in a terminal: of at most 100 characters, however many columns."""

from __future__ import annotations

import pytest

from flowmo.cli.printing import print_table


def test_a_wide_table_comes_in_several(capsys: pytest.CaptureFixture[str]) -> None:
    header = ["model", *(f"measure {i:02}" for i in range(20))]
    rows = [["a", *(str(i) for i in range(20))], ["flowmo-mini", *(str(-i) for i in range(20))]]
    print_table(header, rows)
    blocks = capsys.readouterr().out.split("\n\n")
    assert len(blocks) == 3
    assert all(len(line) <= 100 for block in blocks for line in block.splitlines())
    assert all([line.split()[0] for line in block.splitlines()] == ["model", "a", "flowmo-mini"] for block in blocks)
    found = [cell for block in blocks for cell in block.splitlines()[2].split()[1:]]
    assert found == rows[1][1:]


def test_a_table_that_fits_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["", "PSNR dB"], [["flowmo", "20.1"]])
    assert capsys.readouterr().out == "        PSNR dB\nflowmo     20.1\n"


def test_rows_of_one_name_are_told_apart_in_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    header = ["", "limit", *(f"measure {i:02}" for i in range(10))]
    rows = [
        ["webp", "file 144", *"0123456789"],
        ["webp", "headerless 144", *"9876543210"],
        ["quoted", "", *"0123----", *"--"],
    ]
    print_table(header, rows, names=2)
    first, second = capsys.readouterr().out.split("\n\n")
    assert [line.split("  ")[0] for line in first.splitlines()[1:]] == ["webp", "webp", "quoted"]
    assert second.splitlines()[1].startswith("webp          file 144"), "the limit stands in the second part too"
    assert second.splitlines()[2].startswith("webp    headerless 144")
    assert len(second.splitlines()) == 3, "a row without a number is left out of the second part"
