"""The one list of metrics says what each is called, what it needs and how it is computed (Section 4.1, Table 1).

Adding a metric is one entry of METRICS and its test, since tables, plots, results and ``--metrics`` read this list.
GENERATED has those of generated images, which have no originals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

from ..errors import ConfigError, DataError
from .distances import frechet_of_features, frechet_to, inception_score, kid, precision_recall
from .pixels import pooled_psnr, psnr_uint8, ssim_uint8
from .statistics import Statistics

FEW = 10_000
"""The number of images below which rFID is never printed without KID."""
PART = 5_000
"""Generated images in a part of the Inception Score, as in ADM's evaluator; the last part has those that are left."""


@dataclass(frozen=True)
class Measurements:
    """What metrics are computed from, one row an image (N) in all of it."""

    # Of the reconstructions, or of generated images: numbers (N,) by name, features (N, D) by "network.space".
    columns: Mapping[str, np.ndarray]
    # Features (M, D) of the originals, or of the reference of generated images, by "network.space".
    originals: Mapping[str, np.ndarray]
    # (N,): images of one group have their squared errors pooled before the logarithm of PSNR. None: each by itself.
    groups: np.ndarray | None = None
    # Of a reference, by "network.space".
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    # The part "code" of a result, how much the code is used (evaluation/summary.py); None for a continuous latent.
    code: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Column:
    """A number as tables and plots show it."""

    # What results call it.
    name: str
    # What headings call it.
    label: str
    # Of Python's format().
    format: str
    # Which direction is better.
    better: Literal["higher", "lower", "neither"]
    # What the number is shown multiplied by.
    factor: int = field(default=1, kw_only=True)
    # Whether a comparison draws it against the rate.
    plotted: bool = field(default=True, kw_only=True)

    @property
    def heading(self) -> str:
        """Return the label, with the factor where there is one."""
        return self.label if self.factor == 1 else f"{self.label} x {self.factor}"

    @property
    def axis(self) -> str:
        """Return the label with what is better, for the axis of a plot."""
        return self.label if self.better == "neither" else f"{self.label}, {self.better} is better"

    def text(self, value: float | None, missing: str = "-") -> str:
        """Return a cell of a table."""
        return missing if value is None else format(self.factor * value, self.format)


@dataclass(frozen=True)
class Metric(Column):
    """A number that is computed from measurements."""

    # The column of Measurements, or the features, without which it cannot be had.
    needs: str
    # Returns the number under its name, and those that come with it. Raises DataError for too few images.
    compute: Callable[[Measurements], dict[str, float]]
    # What a result says of it.
    about: str
    # Its name in --metrics, where several numbers are asked for together; "" where that is its own.
    family: str = field(default="", kw_only=True)
    # Whether it is measured when nobody names metrics.
    default: bool = field(default=True, kw_only=True)
    # The metric of all images beside which few images need this one too; "" for none.
    beside: str = field(default="", kw_only=True)
    # The column that it needs, of each pair of images: (reconstructions, images), both uint8 B 3 H W -> (B,). None
    # where a network gives it.
    pair: Callable[[Tensor, Tensor], Tensor] | None = field(default=None, kw_only=True)
    # The least side of an image, in pixels.
    side: int = field(default=1, kw_only=True)
    # The field of Measurements that has to have ``needs`` beside ``columns``.
    against: Literal["columns", "originals", "statistics"] = field(default="columns", kw_only=True)

    @property
    def each_image(self) -> bool:
        """Return whether every image has this number, so that two models are compared image by image."""
        return self.needs == self.name


def mean(values: np.ndarray) -> float:
    """Return the mean of (N,), in float64."""
    return float(values.astype(np.float64).mean())


def _mean_of(name: str) -> Callable[[Measurements], dict[str, float]]:
    return lambda m: {name: mean(m.columns[name])}


def _psnr(m: Measurements) -> dict[str, float]:
    """Return the mean over images, or that over groups, with the former beside it where groups are of several."""
    if m.groups is None:
        return {"psnr": mean(m.columns["psnr"])}
    pooled = {"psnr": pooled_psnr(m.columns["squared_error"].tolist(), m.groups.tolist())}
    alone = len(set(m.groups.tolist())) == len(m.groups)
    return pooled if alone else pooled | {"psnr_each": mean(m.columns["psnr"])}


def _frechet(name: str, space: str) -> Callable[[Measurements], dict[str, float]]:
    return lambda m: {name: frechet_of_features(m.originals[space], m.columns[space])}


def _frechet_to(name: str, space: str) -> Callable[[Measurements], dict[str, float]]:
    return lambda m: {name: frechet_to(m.columns[space], m.statistics[space])}


def _kernel(name: str, space: str) -> Callable[[Measurements], dict[str, float]]:
    return lambda m: dict(zip((name, f"{name}_error"), kid(m.originals[space], m.columns[space]), strict=True))


def _precision_recall(m: Measurements) -> dict[str, float]:
    found = precision_recall(m.originals["inception.pool"], m.columns["inception.pool"])
    return dict(zip(("precision", "recall"), found, strict=True))


def _inception_score(m: Measurements) -> dict[str, float]:
    found = inception_score(m.columns["inception.logits"])
    return dict(zip(("inception_score", "inception_score_std"), found, strict=True))


def _score_of_parts(m: Measurements) -> dict[str, float]:
    return {"inception_score": inception_score(m.columns["inception.logits"], part_size=PART)[0]}


def _use_of_code(m: Measurements) -> dict[str, float]:
    """Return the entropy of a bit and the share of the codes that occur, the mean over groups; nothing without code."""
    if not m.code:
        return {}
    used = [group["used"] for group in m.code["groups"]]
    return {"bit_entropy": m.code["bit_entropy"], "codes_used": sum(used) / len(used)}


_CLOSER, _BALLS = "lower is closer", "shares, higher is better; paired, of the same pictures"
_CODES = "how many codes are used, bits of entropy"
_LITE = "Fréchet distance in EfficientNet-lite0's features, which is no FID"
_FALLS, _ANY = "lower is closer; falls with the number of pictures", "lower is closer; meant for any number of pictures"
_POOL, _SPATIAL, _LOGITS, _LITE_POOL = "inception.pool", "inception.spatial", "inception.logits", "efflite0.pool"

METRICS: tuple[Metric, ...] = (
    Metric("psnr", "PSNR dB", ".2f", "higher", "psnr", _psnr, "dB, higher is closer", pair=psnr_uint8),
    Metric(
        "ssim", "SSIM", ".3f", "higher", "ssim", _mean_of("ssim"), "at most 1, higher is closer",
        pair=ssim_uint8, side=7,
    ),
    Metric("lpips_alex", "LPIPS Alex", ".4f", "lower", "lpips_alex", _mean_of("lpips_alex"), _CLOSER),
    Metric("lpips_vgg", "LPIPS VGG", ".4f", "lower", "lpips_vgg", _mean_of("lpips_vgg"), _CLOSER),
    Metric("rfid", "rFID", ".2f", "lower", _POOL, _frechet("rfid", _POOL), _FALLS),
    Metric("kid", "KID", ".2f", "lower", _POOL, _kernel("kid", _POOL), _ANY, factor=1000, beside="rfid"),
    Metric("sfid", "sFID", ".2f", "lower", _SPATIAL, _frechet("sfid", _SPATIAL), "rFID of spatial features"),
    Metric(
        "precision", "precision", ".3f", "higher", _POOL, _precision_recall, _BALLS, family="precision_recall"
    ),
    Metric("recall", "recall", ".3f", "higher", _POOL, _precision_recall, _BALLS, family="precision_recall"),
    Metric("inception_score", "IS", ".2f", "higher", _LOGITS, _inception_score, "higher is better"),
    Metric("fd_efflite0", "FD-EffLite0", ".2f", "lower", _LITE_POOL, _frechet("fd_efflite0", _LITE_POOL), _LITE),
    Metric(
        "kd_efflite0", "KD-EffLite0", ".2f", "lower", _LITE_POOL, _kernel("kd_efflite0", _LITE_POOL),
        "kernel distance in EfficientNet-lite0's features",
        factor=1000, default=False, plotted=False, beside="fd_efflite0",
    ),
    Metric("codes_used", "codes used", ".1%", "higher", "tokens", _use_of_code, _CODES, family="code"),
    Metric("bit_entropy", "bit entropy", ".3f", "higher", "tokens", _use_of_code, _CODES, family="code"),
)  # fmt: skip

FID = Metric(
    "fid", "FID", ".2f", "lower", _POOL, _frechet_to("fid", _POOL),
    "Fréchet distance of Inception's pool features to those of the whole reference; lower is closer",
    against="statistics",
)  # fmt: skip
_SHOWN = {metric.name: metric for metric in METRICS}

GENERATED: tuple[Metric, ...] = (
    FID,
    replace(
        _SHOWN["sfid"], compute=_frechet_to("sfid", _SPATIAL), against="statistics",
        about="the same of spatial features, the first 7 channels of mixed_6",
    ),
    replace(
        _SHOWN["inception_score"], compute=_score_of_parts,
        about="mean over parts of 5,000 pictures; higher is better",
    ),
    replace(
        _SHOWN["precision"], against="originals",
        about="share of the samples within the k-NN balls (k = 3) of the reference's pictures; higher is better",
    ),
    replace(
        _SHOWN["recall"], against="originals",
        about="share of the reference's pictures within the balls of the samples; higher is better",
    ),
    replace(
        _SHOWN["kid"], against="originals",
        about="kernel distance to the reference's kept features; meant for few pictures",
    ),
)  # fmt: skip
"""Metrics of generated images against a reference; they are shown as those of the same name above."""

MSE = Column("mse", "mean squared error (8-bit levels)", ".2f", "lower")
RATE = Column("bits_per_pixel", "bits/pixel", ".3f", "lower", plotted=False)
AGREEMENT = Column("agreement", "agreement", ".1%", "higher")  # of generated images (evaluation/class_agreement.py)
BEATS_THUMBNAIL = Column("beats_thumbnail", "nearer than thumbnail", ".1%", "higher", plotted=False)
BEATS_TRANSFORM = Column("beats_transform", "nearer than transform", ".1%", "higher", plotted=False)


def columns() -> dict[str, Column]:
    """Return everything that a table may show, by name and in order."""
    others = (MSE, AGREEMENT, BEATS_THUMBNAIL, BEATS_TRANSFORM)
    return {column.name: column for column in (RATE, FID, *METRICS, *others, *GENERATED)}


def in_one_line(numbers: Mapping[str, float]) -> str:
    """Return numbers by name as a line for people, under the headings that they have in a table."""
    return ", ".join(f"{c.heading} {c.text(numbers[name])}" for name, c in columns().items() if name in numbers)


def column(name: str) -> Column:
    """Return how a number is shown; "lpips", as figures and logs of training call it, is LPIPS by AlexNet.

    Raises KeyError for an unknown one.
    """
    return columns()["lpips_alex" if name == "lpips" else name]


def each_image() -> list[str]:
    """Return the metrics of which every image has its own number, in order."""
    return [metric.name for metric in METRICS if metric.each_image]


def of_all_images() -> list[str]:
    """Return the metrics of all images together, in order, without those of the code."""
    return [metric.name for metric in METRICS if "." in metric.needs]


def with_companions(names: Sequence[str]) -> list[str]:
    """Return the names, and those that few images need beside them."""
    return [*names, *(metric.name for metric in METRICS if metric.beside in names)]


def families(table: Sequence[Metric] | None = None) -> dict[str, tuple[Metric, ...]]:
    """Return the metrics of a table, METRICS where none is named, by what ``--metrics`` calls them, in order."""
    found: dict[str, tuple[Metric, ...]] = {}
    for metric in METRICS if table is None else table:
        name = metric.family or metric.name
        found[name] = (*found.get(name, ()), metric)
    return found


def default_families() -> list[str]:
    """Return what is measured when nobody names metrics."""
    return [name for name, metrics in families().items() if metrics[0].default]


def check_metrics(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Return the families once each, in the order of the table, with KID beside rFID where ``count`` images are few.

    Raises ConfigError for an unknown one.
    """
    known = families()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"there is no metric {unknown[0]!r}; choose from {', '.join(known)}")
    wanted = {*names, "kid"} if "rfid" in names and count < FEW else set(names)
    return tuple(name for name in known if name in wanted)


def allowed(measurements: Measurements, table: Sequence[Metric] | None = None) -> list[str]:
    """Return the families of a table that have what they need in the measurements, in order."""
    return [
        name
        for name, (metric, *_) in families(table).items()
        if metric.needs in measurements.columns and metric.needs in getattr(measurements, metric.against)
    ]


def compute(
    names: Sequence[str], measurements: Measurements, table: Sequence[Metric] | None = None
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the numbers of these families of a table, and of those that cannot be had of so few images the reason."""
    numbers: dict[str, float] = {}
    left_out: dict[str, str] = {}
    known = families(table)
    for name in names:
        try:
            for work in dict.fromkeys(metric.compute for metric in known[name]):
                numbers |= work(measurements)
        except DataError as error:
            left_out[name] = str(error)
    return numbers, left_out


def spaces(names: Sequence[str]) -> list[str]:
    """Return "network.space" of every set of features that these families need, in alphabetical order."""
    known = families()
    return sorted({metric.needs for name in names for metric in known[name] if "." in metric.needs})


def note_of_few(counts: Sequence[int], rows: Sequence[Mapping[str, float]]) -> str:
    """Return what to know of FID where some rows are of few images, as a paragraph, and nothing where none is."""
    few = min(counts)
    if few >= FEW or not any("rfid" in row or "fid" in row for row in rows):
        return ""
    return f"\nFID of {few:,} pictures is far above that of 50,000; compare it at equal counts only, KID at any\n"


def result_table(
    first: Sequence[str], names: Sequence[Sequence[str]], rows: Sequence[Mapping[str, float]]
) -> tuple[list[str], list[list[str]]]:
    """Return a header and lines of text: the names of each row, then its numbers, of all that any row has.

    first: the headings of the names.
    """
    shown = [column for name, column in columns().items() if any(name in row for row in rows)]
    lines = [
        [*name, *(column.text(row.get(column.name), "n/a") for column in shown)]
        for name, row in zip(names, rows, strict=True)
    ]
    return [*first, *(column.heading for column in shown)], lines
