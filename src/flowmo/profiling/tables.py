"""What was measured of speed and memory, or estimated, as tables and lines for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..text import Table, number
from .agreement import Agreement
from .attention import Kernel
from .speed import Timing
from .training import Measured, Plan

GIB = 2**30


def machine_in_words(facts: Mapping[str, Any]) -> str:
    """Return what a machine is. facts: of ``provenance.machine``."""
    return f"{facts.get('gpu', facts['cpu'])}, {facts['threads']} threads, torch {facts['torch']}"


def timing_table(timings: Sequence[Timing]) -> Table:
    """Return the speeds of encoding and decoding."""
    rows = []
    for t in timings:
        what = t.what if t.num_steps is None else f"{t.num_steps} step{'s' if t.num_steps > 1 else ''}"
        settings = [number(t.guidance_scale, "g"), number(t.decoder_passes, "d")]
        speed = [f"{t.images_per_second:.2f}", f"{t.seconds:.4f}", number(t.seconds_per_decoder_pass, ".4f")]
        rows.append([what, *settings, *speed, number(t.peak_memory_mb, ".0f")])
    return ["", "guidance", "passes", "images/s", "s/batch", "s/pass", "peak MiB"], rows


def ablation_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return what each part of the fast sampler gains. rows: of ``sampler_ablation.with_utilisation``."""
    formats = {"seconds_per_pass": ".4f", "images_per_second": ".2f", "ratio": ".2f", "difference": ".1g"}
    formats["utilisation"] = ".1%"
    cells = [[row["name"], *(number(row.get(key), spec) for key, spec in formats.items())] for row in rows]
    return ["", "s/pass", "images/s", "times plain", "difference", "utilisation"], cells


def agreement_table(found: Sequence[Agreement]) -> Table:
    """Return how far each way to run a model is from the CPU's float32."""
    rows = []
    for a in found:
        differences = [number(value, ".2g") for value in (a.image, a.loss, a.gradient)]
        rows.append([a.name, *differences, number(a.tokens, ".1%"), "good" if a.good else "WRONG"])
    return ["difference from the CPU's float32", "image", "loss", "gradient", "same tokens", ""], rows


def attention_table(kernels: Sequence[Kernel], ceilings: Mapping[str, float]) -> Table:
    """Return the times of attention kernels. ceilings: FLOP/s of matrix products on the device, by type."""
    rows = []
    for k in kernels:
        times = [number(seconds and 1e3 * seconds, ".3f") for seconds in (k.forward, k.both)]
        share = number(k.flops and k.flops / ceilings[k.dtype], ".1%")
        rows.append([f"{k.name}, {k.dtype}", *times, share, number(k.difference, ".1g")])
    return ["attention", "ms forward", "ms both", "utilisation", "difference"], rows


def evaluation_table(rows: Sequence[Mapping[str, Any]], utilisation: float) -> Table:
    """Return the minutes that a data set takes by numbers of GPUs. rows: of ``EvaluationPlan.rows``."""
    cells = [[row["gpus"], row["seconds"] / 60, utilisation * row["seconds"] / 3600] for row in rows]
    header = ["GPUs", "minutes", "utilisation for one hour"]
    return header, [[str(gpus), f"{minutes:,.1f}", f"{share:.1%}"] for gpus, minutes, share in cells]


def plan_table(planned: Sequence[Plan]) -> Table:
    """Return the memory of each GPU by ways to train on several."""
    rows = []
    for p in planned:
        gpus = f"{p.processes} x {p.strategy if p.processes > 1 else 'alone'}"
        rows.append([gpus, f"{p.micro_batches} x {p.micro_batch}", *(f"{size / GIB:.2f}" for size in p.memory)])
    return ["GPUs", "images", *(planned[0].memory._fields if planned else ())], rows


def measured_table(found: Sequence[Measured]) -> Table:
    """Return the speed and memory of updates."""
    header = ["images", "compiled", "images/s", "s/update", "GiB", "estimate", "process", "utilisation", "with d_perc"]
    rows = []
    for m in found:
        numbers, shares = ["-"] * 3, ["-"] * 2
        if m.speed:
            numbers = [f"{m.speed.images_per_second:.2f}", f"{m.speed.seconds:.3f}", f"{m.speed.memory / GIB:.2f}"]
            shares = [f"{m.speed.utilisation:.1%}", f"{m.speed.utilisation_with_perceptual:.1%}"]
        memory = [f"{m.estimate / GIB:.2f}", number(m.process and m.process / GIB, ".2f")]
        rows.append([str(m.micro_batch), "yes" if m.compile else "no", *numbers, *memory, *shares])
    return header, rows
