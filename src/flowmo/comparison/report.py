"""The files that a comparison leaves behind: the result, a table to read, the plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..data import Images
from ..evaluation.protocols import STANDARD
from ..evaluation.results import (
    Result,
    describe_data,
    describe_model,
    libraries,
    write_result,
)
from ..files import replacing
from ..metrics.networks import Networks
from ..metrics.table import columns, in_one_line
from ..provenance import machine
from ..tokenizer import FlowMo
from ..viewing.plots import write_plot
from ..viewing.rates import QuotedPoint, RatePoint, bar_figure, figure_one, rate_figure
from .codecs import SCALES, Codec
from .coded import Search
from .compare import Row
from .published import COMPARABILITY, IMAGES, SOURCE, TABLE_1
from .table import markdown

RESULT, TABLE, FIGURE_1 = "comparison.json", "table.md", "figure-1.png"
STORE = "progress.jsonl"  # rows and coded files, beside the result


@dataclass(frozen=True)
class Comparison:
    """All that was compared, and how."""

    rows: Sequence[Row]  # of the table, in the order of measurement
    models: Sequence[tuple[str, FlowMo]]  # (name, model)
    codecs: Sequence[Codec]  # that were compared
    search: Search  # for the files of the codecs
    networks: Networks  # of the metrics
    images: Images  # the originals, uint8
    data: str  # the name of the data set
    bad: Sequence[dict[str, str]]  # of each picture that could not be read its "file" and the "reason"
    seconds: float  # of work, over all sittings
    seed: int  # of the first picture
    command: str  # that was typed
    device: torch.device  # that models and metrics ran on

    @property
    def size(self) -> tuple[int, int]:
        """Return the (height, width) of the pictures in pixels."""
        return (self.images.images.shape[2], self.images.images.shape[3])


def in_words(row: Row) -> str:
    """Return one line of text for a row, to be said as soon as it is measured."""
    counted = {"file": " a whole file", "payload": " without headers", None: ""}[row.counted]
    limit = "" if row.target is None else f", {row.target} bytes{counted}"
    if row.reached < row.count:
        reached = f"only {row.reached} of {row.count} pictures" if row.reached else "no picture"
        return f"{row.name}{limit}: {reached} can be so small"
    return f"{row.name}{limit}: " + in_one_line(row.metrics)


def write_comparison(out: Path, run: Comparison) -> list[str]:
    """Write the result, the table and the plots into a folder, and return their names."""
    skipped = [f"{bad['file']}: {bad['reason']}" for bad in run.bad]
    data = describe_data(run.data, run.images.images, run.images.split, skipped)
    seed = STANDARD.noise_in_words(run.seed)
    result = Result(
        kind="comparison",
        protocol=STANDARD.name,
        data=data,
        models=tuple(describe_model(model, name, model.config.sampler) for name, model in run.models),
        seed=seed,
        content=_content(run),
        seconds=run.seconds,
        command=run.command,
        machine=machine(run.device),
        libraries=libraries() | _codec_libraries(run.codecs),
    )
    write_result(out / RESULT, result)
    where = f"the {data.split} part of {data.description}" if data.split else data.description
    size = f"{run.size[0]} x {run.size[1]}"
    note = f"{data.count:,} pictures of {size} pixels, {where}; {seed}"
    with replacing(out / TABLE) as part:
        part.write_text(markdown(run.rows, note))
    codecs = (
        f"codecs: of scales {', '.join(f'{s:g}' for s in SCALES)} the nearest by LPIPS (Alex), at most so many bytes"
    )
    return [RESULT, TABLE, *_plot(out, run, f"{note}\n{codecs}" if run.codecs else note)]


def _content(run: Comparison) -> dict[str, Any]:
    return {
        "rows": [asdict(row) for row in run.rows],
        "bytes": list(run.search.targets),
        "counted": list(run.search.counted),
        "codecs": {codec.name: codec.about for codec in run.codecs},
        "scales": list(run.search.scales),
        "choice": "of the highest quality at each scale that is not above the bytes, the lowest LPIPS (Alex)",
        "conventions": "pictures rounded to 8 bits; PSNR, SSIM and LPIPS of each picture, then the mean",
        "networks": {network.name: network.checksum for network in run.networks.features.values()},
        "quoted": {"source": SOURCE, "warning": COMPARABILITY, "rows": [row._asdict() for row in TABLE_1]},
    }


def _codec_libraries(codecs: Sequence[Codec]) -> dict[str, str]:
    if not any(codec.name == "jpegxl" for codec in codecs):
        return {}
    import imagecodecs

    return {"imagecodecs": imagecodecs.__version__}


def _plot(out: Path, run: Comparison, note: str) -> list[str]:
    pixels, names = run.size[0] * run.size[1], []
    ticks = run.search.targets or [round(row.payload_bytes) for row in run.rows if row.payload_bytes]
    panels: dict[str, list[RatePoint]] = {
        way: [_point(row) for row in run.rows if row.counted in (way, None) and row.group != "control"]
        for way in run.search.counted
    }
    for measure, column in columns().items():
        if column.plotted and any(measure in row.metrics for row in run.rows):
            label = column.axis
            names.append(f"rate-{measure.replace('_', '-')}.png")
            title = f"Rate and {column.label}"
            logarithmic = _spread(run.rows, measure) > 5
            if len(set(ticks)) == 1:  # at one number of bytes there is no curve
                figure = bar_figure(panels, measure, label, f"{title}, {ticks[0]} bytes", note, logarithmic)
            else:
                figure = rate_figure(panels, measure, label, pixels, title, note, ticks, logarithmic)
            write_plot(out / names[-1], figure)
    points = panels.get("payload") or panels["file"]
    if not any("rfid" in point.values for point in points):
        return names
    title, count = "Figure 1: rFID against bits per pixel", len(run.images.images)
    figure = figure_one(points, _quoted(count), pixels, title, f"{note}\nrates without headers\n{_comparable(count)}")
    write_plot(out / FIGURE_1, figure)
    return [*names, FIGURE_1]


def _quoted(count: int) -> list[QuotedPoint]:
    """Return the rows of Table 1, where ``count`` images are as many as theirs are of."""
    if count < IMAGES:
        return []
    return [QuotedPoint(q.name, q.bits_per_pixel, q.rfid, q.name.startswith("FlowMo")) for q in TABLE_1]


def _comparable(count: int) -> str:
    """Return the note on the published rows that belongs beside rFID of ``count`` images."""
    if count < IMAGES:
        return f"rFID of {count:,} images is far above that of {IMAGES:,}, so that no published rows stand beside it"
    return COMPARABILITY


def _point(row: Row) -> RatePoint:
    return RatePoint(row.name, row.group == "model", row.file_bytes, row.payload_bytes, row.metrics)


def _spread(rows: Sequence[Row], measure: str) -> float:
    """Return the largest value as a multiple of the smallest, or 0 where one is not positive and has no logarithm."""
    values = [row.metrics[measure] for row in rows if measure in row.metrics]
    return max(values) / min(values) if min(values) > 0 else 0.0
