"""The ablations of the paper are data here (Section 4.2; Tables 3, 4, 5, 7; Figures 7 and 9; Appendix A.2 and C).

They say which models are trained, how each row is measured, and what the paper has there.
A row is a line of a table. It names the model that it measures, the flags of ``flowmo evaluate`` and the paper's
numbers; its difference is taken from the row that the paper compares it with, seed by seed. ``steps`` turns the rows
into command lines, each of which may be killed and given again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import presets
from ..config import FlowMoConfig, override
from ..errors import ConfigError

METRICS = ("rfid", "kid", "psnr", "ssim", "lpips_alex")
LOSS_WEIGHTS = ("0.05", "0.01", "0.005", "0.001", "0.0005", "0.0001")
"""Weights of the one-step loss in Table 7, its sweep of orders of magnitude."""
NORMS = ("0", "0.7", "0.9", "1", "1.1")
"""Factors of x_1 in Figure 9."""


@dataclass(frozen=True)
class Model:
    """One training."""

    name: str  # of the model, and of its folder
    stage: str = "mode_matching"  # of ``flowmo train``, or ``mode_seeking``
    config: tuple[str, ...] = ()  # NAME=VALUE of the model
    settings: tuple[str, ...] = ()  # NAME=VALUE of the run
    init: str | None = None  # the model that it begins from; None for random weights
    flags: tuple[str, ...] = ()  # more of the command


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    table: str  # "Table 4", for example
    label: str  # what the line is called
    model: str  # the name of the training that it measures
    against: str | None = None  # the label that its difference is taken from; None for the first line
    sampler: tuple[str, ...] = ()  # flags of ``flowmo evaluate``
    paper: dict[str, float] = field(default_factory=dict)  # by metric; none where the paper has no such line

    @property
    def evaluation(self) -> str:
        """Return the name of its evaluation, which rows of the same model and sampler share."""
        return "_".join([self.model, *(flag.strip("-") for flag in self.sampler)])


@dataclass(frozen=True)
class Scale:
    """How large the models are and how long they train, the same for all trainings."""

    preset: str  # of the models
    config: tuple[str, ...] = ()  # NAME=VALUE of all models
    train: tuple[str, ...] = ()  # flags of ``flowmo train``
    settings: tuple[str, ...] = ()  # NAME=VALUE of its runs
    posttrain: tuple[str, ...] = ()  # flags of ``flowmo posttrain``
    postset: tuple[str, ...] = ()  # NAME=VALUE of its runs
    count: int = 50_000  # images that evaluations measure
    figure_count: int = 5_000  # images that figures measure
    short: bool = False  # whether trainings are short, and begin with a curriculum


@dataclass(frozen=True)
class Step:
    """One command."""

    of: str  # the model that it trains or measures, or the figure that it draws
    name: str  # unique
    words: tuple[str, ...]  # after ``flowmo``
    after: tuple[str, ...] = ()  # names of the steps that come before it


def small_scale(images: int = 12_288, post_images: int = 2_048, count: int = 400) -> Scale:
    """Return the scale that runs on two cores in four hours: 32 x 32 pixels, about a million parameters.

    Runs are far too short for the published p(t) alone, so all begin with a curriculum (docs/TRAINING.md) and end with
    the published p(t).
    """
    batch, post_batch = 16, 8

    def share(of: float) -> int:
        return round(images * of / batch) * batch

    return Scale(
        preset="tiny",
        config=(
            *("encoder.patch_size=4", "encoder.width=96", "encoder.depth=2"),
            *("decoder.patch_size=4", "decoder.width=96", "decoder.depth=3"),
            *("latent_positions=grid", "initial_latent=learned"),
        ),
        train=("--recipe", "none"),
        settings=(
            *(f"images={images}", f"batch_size={batch}", "learning_rate=1e-3", f"warmup_images={share(0.03)}"),
            *(f"cooldown_images={share(0.25)}", "gradient_clip=0.5", "perceptual_share=0.25", "workers=0"),
            *("losses.commitment=0.01", f"validate_every={images}", "checkpoint_minutes=2"),
        ),
        posttrain=("--no-rfid", "--validation-count", "32"),
        postset=(
            *(f"images={post_images}", f"batch_size={post_batch}", f"micro_batch={post_batch}", "learning_rate=2e-4"),
            *(f"warmup_images={post_batch * 8}", f"cooldown_images={post_images // 4}", "workers=0"),
            *(f"validate_every={post_images}", "checkpoint_minutes=2", "sample.network_side=128", "sample.share=0.5"),
        ),
        count=count,
        figure_count=min(count, 256),
        short=True,
    )


def lab_scale(preset: str) -> Scale:
    """Return the paper's own scale for a lab, a preset of 256 pixels with the published settings (Tables 4 and 6)."""
    presets.preset(preset)  # raises where there is none
    return Scale(preset, train=("--recipe", "published"), posttrain=("--recipe", "published"))


def curriculum(scale: Scale) -> tuple[str, ...]:
    """Return the settings of the curriculum of short runs; none in long ones."""
    if not scale.short:
        return ()
    given = dict(setting.split("=", 1) for setting in scale.settings)
    images, batch = int(given["images"]), int(given["batch_size"])
    lengths = {"curriculum_images": 0.4, "anneal_images": 0.15}
    return tuple(f"noise_levels.{name}={round(images * of / batch) * batch}" for name, of in lengths.items())


def models(scale: Scale) -> list[Model]:
    """Return all trainings, each after the one that it begins from."""
    base: FlowMoConfig = override(presets.preset(scale.preset), list(scale.config))
    doubled = tuple(f"{side}.patch_size={2 * getattr(base, side).patch_size}" for side in ("encoder", "decoder"))
    start = curriculum(scale)
    continuous = ("quantizer.kind=continuous", "bits_per_token=16", "bits_per_group=16")
    no_tail = "noise_levels.uniform_mass=0"
    found = [
        Model("base", settings=start),
        Model("doubled-patch", config=doubled, settings=start),
        Model("regression", stage="autoencode"),
        Model("mse-encoder", settings=start, init="regression", flags=("--freeze-encoder",)),
        Model("no-perceptual", settings=(*start, "losses.perceptual=0")),
        Model("fsq", config=("quantizer.kind=fsq",), settings=start),
        Model("logit-normal", settings=(no_tail,)),
        Model("continuous", config=continuous, settings=start),
        Model("noise-sync", config=continuous, settings=(*start, "noise_sync=0.1")),
        Model("hi", config=("bits_per_token=56", "bits_per_group=14"), settings=start),
    ]
    if scale.short:
        found += [
            Model("logit-normal-later", settings=(*start, no_tail)),
            Model("no-curriculum"),
        ]
    for init in ("base", "hi"):
        found.append(Model(f"{init}-posttrained", "mode_seeking", settings=("sample.weight=0.01",), init=init))
    one_step = "sample.mode=one_step"
    found += [
        Model(f"one-step-{weight}", "mode_seeking", settings=(one_step, f"sample.weight={weight}"), init="base")
        for weight in (*LOSS_WEIGHTS, "0")
    ]
    return found


def rows(scale: Scale) -> list[Row]:
    """Return the lines of all tables, in order, the one that others are compared with before them."""
    base, full, pure = "FlowMo (fewer params.)", "continuous latent, noise sync", "L_sample, weight 0.01"

    def four(label: str, model: str, *numbers: float, sampler: tuple[str, ...] = ()) -> Row:
        paper = dict(zip(("rfid", "psnr", "lpips_alex"), numbers, strict=False))
        return Row("Table 4", label, model, None if label == base else base, sampler, paper)

    found = [
        four(base, "base", 2.87, 20.71, 0.15),
        four("with doubled patch size", "doubled-patch", 6.39, 19.94, 0.17),
        four("with MSE-trained encoder", "mse-encoder", 3.82, 21.40, 0.15),
        four("without perceptual loss", "no-perceptual", 13.86, 22.11, 0.21),
        four("with FSQ quantization", "fsq", 3.14, 21.31, 0.14),
        four("with logit-normal schedule", "logit-normal", 4.08, 16.45, 0.21),
    ]
    if scale.short:
        found += [
            four("the same after the curriculum (not in the paper)", "logit-normal-later"),
            four("thick-tailed, without curriculum (not in the paper)", "no-curriculum"),
        ]
    found += [
        four("without shifted sampler", "base", 3.42, 20.25, 0.16, sampler=("--rho", "1")),
        four("without guidance", "base", 3.28, 20.67, 0.16, sampler=("--guidance", "1")),
    ]
    for name, model, before, after in (
        ("Lo", "base", (1.10, 21.38, 0.134), (0.95, 22.07, 0.113)),
        ("Hi", "hi", (0.73, 24.02, 0.086), (0.56, 24.93, 0.073)),
    ):
        for label, which, against, numbers in (
            (f"FlowMo-{name}", model, None, before),
            (f"FlowMo-{name} (post-trained)", f"{model}-posttrained", f"FlowMo-{name}", after),
        ):
            paper = dict(zip(("rfid", "psnr", "lpips_alex"), numbers, strict=True))
            found.append(Row("Table 5", label, which, against, paper=paper))
    found.append(Row("Table 7", pure, "base-posttrained", paper={"rfid": 1.28}))
    swept = dict(zip(LOSS_WEIGHTS, (2.57, 2.38, 2.16, 1.67, 1.61, 1.81), strict=True))
    found += [
        Row("Table 7", f"L_perc on one step, weight {w}", f"one-step-{w}", pure, paper={"rfid": swept[w]})
        for w in LOSS_WEIGHTS
    ]
    found.append(Row("Table 7", "the flow loss alone (not in the paper)", "one-step-0", pure))
    sync = dict(rfid=0.65, psnr=26.61, ssim=0.791, lpips_alex=0.054)
    found += [
        Row("Table 3", full, "noise-sync", paper=sync),
        Row("Table 3", "the same without noise sync (not in the paper)", "continuous", full),
    ]
    return found


FIGURES = {
    "discoloration": ("base", "logit-normal"),
    "rate-distortion-perception": ("base", "hi"),
}
"""The commands of Figures 7 and 9, and the models that they compare."""


def steps(scale: Scale, data: str, out: Path, seeds: Sequence[int], device: str) -> list[Step]:
    """Return the commands, seed by seed, so that a run that is stopped has whole tables of fewer seeds.

    out: trainings, evaluations and figures are below it. Raises ConfigError for no seed at all.
    """
    if not seeds:
        raise ConfigError("ablations need at least one seed")
    return [step for seed in seeds for step in _of_seed(scale, data, out, seed, device)]


def _of_seed(scale: Scale, data: str, out: Path, seed: int, device: str) -> list[Step]:
    """Return the commands of one seed: each training, its measurements, and the figures at the end."""
    found, there = [], ("--device", device)
    measured = {row.evaluation: row for row in rows(scale)}
    for model in models(scale):
        found.append(_training(scale, model, data, out, seed, there))
        for name, row in measured.items():
            if row.model == model.name:
                where = ("--out", str(out / "evaluations" / f"{name}-{seed}"))
                words: tuple[str, ...] = (
                    "evaluate",
                    str(folder(out, model.name, seed)),
                    data,
                    "--count",
                    str(scale.count),
                )
                words += ("--seed", str(seed), "--metrics", *METRICS, *row.sampler, *where, *there)
                found.append(Step(model.name, f"evaluate {name} {seed}", words, (f"train {model.name} {seed}",)))
    for figure, compared in FIGURES.items():
        words = ("figure", figure, data, "--model", *(str(folder(out, name, seed)) for name in compared))
        words += ("--count", str(scale.figure_count), "--seed", str(seed), "--force")
        words += ("--scales", *NORMS) if figure == "rate-distortion-perception" else ()
        words += ("--out", str(out / "figures" / f"{figure}-{seed}"), *there)
        found.append(Step(figure, f"figure {figure} {seed}", words, tuple(f"train {name} {seed}" for name in compared)))
    return found


def _training(scale: Scale, model: Model, data: str, out: Path, seed: int, there: tuple[str, ...]) -> Step:
    words: tuple[str, ...] = (data, str(folder(out, model.name, seed)))
    if model.init is not None:
        words += ("--init", str(folder(out, model.init, seed)))
    if model.stage == "mode_seeking":
        words = ("posttrain", *words, *scale.posttrain)
        settings = scale.postset
    else:
        config = (*scale.config, *model.config)
        if model.init is None:
            words += ("--preset", scale.preset, *(("--config", *config) if config else ()))
        if model.stage != "mode_matching":
            words += ("--stage", model.stage)
        words, settings = ("train", *words, *model.flags, *scale.train), scale.settings
    after = () if model.init is None else (f"train {model.init} {seed}",)
    words += ("--set", *settings, *model.settings, f"seed={seed}", *there)
    return Step(model.name, f"train {model.name} {seed}", words, after)


def folder(out: Path, model: str, seed: int) -> Path:
    """Return where a training writes to."""
    return out / "models" / f"{model}-{seed}"
