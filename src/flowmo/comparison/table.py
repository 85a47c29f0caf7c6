"""The rows of a comparison as a table, those of like bytes together, the published ones (Table 1) below as quoted."""

from __future__ import annotations

from collections.abc import Sequence

from ..metrics.table import Column, columns
from .compare import ANOTHER, Row
from .published import COMPARABILITY, TABLE_1, Quoted

FIRST = {"model": 0, "control": 1, "tokenizer": 2, "thumbnail": 3, "codec": 4}
NOTES = """\
limit: the bytes that were allowed, of the whole file or of what is left of it without headers; "-": not every picture
could be brought to it (how many could), or there is no such number. "without headers" counts what a reader needs who
knows size, settings and constant tables beforehand; of a tokenizer its tokens. Bits per pixel are without headers.
"nearer than thumbnail" or "transform": in how many pictures, by LPIPS (Alex), beside it at as many bytes."""


def table(rows: Sequence[Row], quoted: bool = True) -> tuple[list[str], list[list[str]]]:
    """Return (heading, lines), all cells text, without the columns of metrics that no row has."""
    shown = measured_columns(rows)
    heading = ["", "limit", "file bytes", "without headers", "bits/pixel", *(column.heading for column in shown)]
    lines = [_line(row, shown) for row in sorted(rows, key=order)]
    return heading, lines + ([_quoted(row, shown) for row in TABLE_1] if quoted else [])


def code_costs(rows: Sequence[Row]) -> list[str]:
    """Return a line for each model that was also decoded from other pictures' codes: how many dB that costs."""
    costs = []
    for row in rows:
        own = [r for r in rows if f"{r.name}{ANOTHER}" == row.name and r.payload_bytes == row.payload_bytes]
        if row.group == "control" and own and "psnr" in row.metrics:
            lost = own[0].metrics["psnr"] - row.metrics["psnr"]
            size = "" if row.payload_bytes is None else f" at {row.payload_bytes:.0f} bytes"
            costs.append(f"{own[0].name}{size}: another picture's code costs {lost:.2f} dB")
    return costs


def measured_columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of the metrics that any row has."""
    return [column for name, column in columns().items() if any(name in row.metrics for row in rows)]


def markdown(rows: Sequence[Row], caption: str) -> str:
    """Return the table in Markdown with its caption and the meaning of its words, to be read on its own."""
    heading, lines = table(rows)
    rule = ["---", "---", *["---:"] * (len(heading) - 2)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in [heading, rule, *lines])
    costs = "".join(f"{line}\n\n" for line in code_costs(rows))
    return f"{caption}\n\n{text}\n\n{costs}{NOTES}\n\n{COMPARABILITY}\n"


def order(row: Row) -> tuple[float, int, str, str]:
    """Return the key that sorts rows by bytes, then by the kind of method."""
    size = row.target or row.payload_bytes or row.file_bytes or float("inf")
    return size, FIRST[row.group], row.counted or "", row.name


def _line(row: Row, shown: Sequence[Column]) -> list[str]:
    words = {"file": "file", "payload": "headerless", None: ""}[row.counted]
    limit = f"{words} {row.target}".strip() if row.target else ""
    if row.reached < row.count:
        limit += f" ({row.reached} of {row.count})"
    sizes = [_number(row.file_bytes, ".0f"), _number(row.payload_bytes, ".0f"), _number(row.bits_per_pixel, ".3f")]
    return [row.name, limit, *sizes, *(column.text(row.metrics.get(column.name)) for column in shown)]


def _quoted(row: Quoted, shown: Sequence[Column]) -> list[str]:
    values = {"psnr": row.psnr, "ssim": row.ssim, "lpips_alex": row.lpips, "rfid": row.rfid}
    numbers = [column.text(values.get(column.name)) for column in shown]
    return [row.name, "quoted", "-", "-", f"{row.bits_per_pixel:.3f}", *numbers]


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
