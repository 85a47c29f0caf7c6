"""The numbers of the ablations are put beside the paper's, with their intervals over seeds (Section 4.2).

A difference is taken seed by seed, both models trained and sampled from the same seed; its interval is Student's, of
95 %, over the seeds. A row agrees with the paper where the interval has the sign of the paper's difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import to_dict
from ..errors import DataError
from ..evaluation.results import Result, read_result
from ..metrics.table import column, columns
from .ablations import FIGURES, METRICS, Row, Scale, rows

STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's factors of the two-sided interval of 95 %, by the number of seeds."""


def gather(scale: Scale, out: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Return what was measured below ``out``, as plain JSON data with ``rows``, ``figures``, and what they are of.

    A row that was not measured has no seeds.
    Raises DataError where rows are of different images or protocols.
    """
    found = {row.evaluation: _evaluations(out, row, seeds) for row in rows(scale)}
    _check_same([result for of_row in found.values() for result in of_row.values()])
    by_label = {(row.table, row.label): row for row in rows(scale)}
    lines = []
    for row in rows(scale):
        mine = _numbers(found[row.evaluation])
        line: dict[str, Any] = {
            "table": row.table,
            "label": row.label,
            "model": row.model,
            "seeds": sorted(mine),
            "metrics": {m: summary([mine[s][m] for s in sorted(mine)]) for m in METRICS} if mine else {},
            "paper": row.paper,
        }
        if row.against is not None:
            other = by_label[row.table, row.against]
            line["against"] = row.against
            line["difference"] = differences(mine, _numbers(found[other.evaluation]))
            line["paper_difference"] = {
                m: row.paper[m] - other.paper[m] for m in METRICS if m in row.paper and m in other.paper
            }
            line["agrees"] = {
                m: agreement(line["difference"][m], wanted)
                for m, wanted in line["paper_difference"].items()
                if m in line["difference"]
            }
        lines.append(line)
    first = next((result for of_row in found.values() for result in of_row.values()), None)
    return {
        "scale": to_dict(scale),
        "seeds_asked": list(seeds),
        "data": None if first is None else to_dict(first.data),
        "code": None if first is None else first.code,
        "machine": None if first is None else first.machine,
        "rows": lines,
        "figures": {figure: _figure(out, figure, seeds) for figure in FIGURES},
    }


def _evaluations(out: Path, row: Row, seeds: Sequence[int]) -> dict[int, Result]:
    paths = {
        seed: out / "evaluations" / f"{row.evaluation}-{seed}" / f"{row.model}-{seed}-standard.json" for seed in seeds
    }
    return {seed: read_result(path) for seed, path in paths.items() if path.exists()}


def _numbers(results: dict[int, Result]) -> dict[int, dict[str, float]]:
    return {seed: result.content["metrics"] for seed, result in results.items()}


def _check_same(results: Sequence[Result]) -> None:
    if len({(result.data.sha256, result.data.count, result.protocol) for result in results}) > 1:
        raise DataError("the evaluations are of different images or protocols; begin a new folder")


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return the mean over seeds, and ``low`` and ``high`` of its 95 % interval where there are at least two."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return {"mean": mean}
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = STUDENT.get(len(values), STUDENT[10]) * deviation / math.sqrt(len(values))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def differences(mine: dict[int, dict[str, float]], theirs: dict[int, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the summary of mine - theirs by metric, over the seeds that both have; empty where there are none."""
    seeds = sorted(set(mine) & set(theirs))
    if not seeds:
        return {}
    return {m: summary([mine[seed][m] - theirs[seed][m] for seed in seeds]) for m in METRICS}


def agreement(difference: dict[str, float], wanted: float) -> str:
    """Return ``yes`` or ``no`` where the interval has one sign, the paper's or the other; else ``open``."""
    if wanted == 0:
        return "equal in the paper"
    ends = [difference.get("low", math.nan), difference.get("high", math.nan)]
    if not (min(ends) > 0 or max(ends) < 0):
        return "open"
    return "yes" if (ends[0] > 0) == (wanted > 0) else "no"


def _figure(out: Path, figure: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the points of Figure 7 or 9, each a summary over seeds, models named without their seed."""
    points: dict[tuple[Any, ...], list[dict[str, float]]] = {}
    for seed in seeds:
        path = out / "figures" / f"{figure}-{seed}" / f"{figure}.json"
        for key, numbers in _points(read_result(path).content) if path.exists() else ():
            name = str(key[0]).removesuffix(f"-{seed}")
            points.setdefault((name, *key[1:]), []).append(numbers)
    return [
        {"point": list(key), "seeds": len(found)} | {name: summary([each[name] for each in found]) for name in found[0]}
        for key, found in points.items()
    ]


def _points(content: dict[str, Any]) -> list[tuple[tuple[Any, ...], dict[str, float]]]:
    if "models" in content:
        return [
            ((m["model"],), {"mean_color_error": m["mean_color_error"]["mean"], "psnr": m["psnr"]})
            for m in content["models"]
        ]
    return [
        ((p["model"], p["noise_scale"]), {name: p[name] for name in ("psnr", "rfid", "kid") if name in p})
        for p in content["points"]
    ]


def table(result: dict[str, Any], name: str) -> str:
    """Return one table of a gathered result as Markdown.

    A line has our number, its difference, the paper's number, and whether they agree.
    """
    known = columns()
    lines = [
        f"| {name} | seeds | " + " | ".join(known[m].heading for m in METRICS) + " | the paper's | agree |",
        "|---|---:|" + "---:|" * len(METRICS) + "---|---|",
    ]
    for row in result["rows"]:
        if row["table"] != name:
            continue
        if not row["seeds"]:
            lines.append(f"| {row['label']} | 0 | " + "not run yet | " * len(METRICS) + f"{_paper(row)} | |")
            continue
        cells = []
        for metric in METRICS:
            column, change = known[metric], row.get("difference", {}).get(metric)
            cell = column.text(row["metrics"][metric]["mean"])
            if change:
                cell += f" ({_signed(change, column.factor, column.format)})"
            cells.append(cell)
        agrees = ", ".join(f"{known[m].label}: {word}" for m, word in row.get("agrees", {}).items())
        lines.append(f"| {row['label']} | {len(row['seeds'])} | {' | '.join(cells)} | {_paper(row)} | {agrees} |")
    return "\n".join(lines)


def _signed(change: dict[str, float], factor: float, form: str) -> str:
    values = [change["low"], change["high"]] if "low" in change else [change["mean"]]
    return " to ".join(format(factor * value, f"+{form}") for value in values)


def _paper(row: dict[str, Any]) -> str:
    known, change = columns(), row.get("paper_difference", {})
    words = []
    for metric, value in row["paper"].items():
        form = known[metric].format
        words.append(
            f"{known[metric].label} {value:{form}}" + (f" ({change[metric]:+{form}})" if metric in change else "")
        )
    return ", ".join(words) or "-"


def figure_table(result: dict[str, Any], figure: str) -> str:
    """Return the points of Figure 7 or 9 as Markdown, means over the seeds with their intervals."""
    points = result["figures"][figure]
    if not points:
        return "Not run yet."
    names = [name for name in points[0] if name not in ("point", "seeds")]
    titles = {name: column(name).label for name in ("psnr", "rfid", "kid")}
    titles["mean_color_error"] = "error of mean colour (8-bit levels)"
    head = ["model", *(["norm of x_1"] if len(points[0]["point"]) > 1 else []), "seeds", *(titles[n] for n in names)]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for point in points:
        cells = [str(part) if isinstance(part, str) else f"{part:g}" for part in point["point"]]
        cells.append(str(point["seeds"]))
        for name in names:
            factor, value = 1000 if name == "kid" else 1, point[name]
            interval = f" ({factor * value['low']:.2f} to {factor * value['high']:.2f})" if "low" in value else ""
            cells.append(f"{factor * value['mean']:.2f}{interval}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def conditions(result: dict[str, Any]) -> str:
    """Return what a gathered result is of, in a sentence or two."""
    measured = [row for row in result["rows"] if row["seeds"]]
    words = f"{len(measured)} of {len(result['rows'])} rows are measured, {len(result['seeds_asked'])} seeds are asked."
    if result["data"] is None:
        return words
    data, code = result["data"], result["code"]
    height, width = data["image_size"]
    return (
        f"{words} {data['count']:,} images of {height} x {width} pixels ({data['description']}, {data['split']}), "
        f"standard protocol, commit {code.get('commit', '?')}."
    )
