"""The figures of a generator's run, from what runs/generator.sh left: a plot of its sweeps, and neighbours.

    python tools/generator_figures.py DATA OUT [--split train] [--samples NAME] [--shown N]

OUT/sweeps.png: FID and agreement by guidance in the generator, in the decoder and in both, and by temperature, with
the controls as lines. OUT/neighbours.png: samples beside the nearest training pictures of their class, by the features
of EfficientNet-lite0: copies would show.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from flowmo.codec import read_shard
from flowmo.data import open_images, to_uint8
from flowmo.evaluation.reference import prepared
from flowmo.evaluation.results import read_result
from flowmo.generation import first_name
from flowmo.perceptual.classifier import Classifier, load_classifier
from flowmo.viewing import captioned_grid, write_png
from flowmo.viewing.plots import COLORS, INK, new_figure, styled, write_plot

OWN = "decoder as stored"
SHUFFLED = "control-shuffled-labels"
CONTROLS = {  # the style of its line, its name
    "floor-reconstructions": ("-", "reconstructions, the floor"),
    SHUFFLED: ("--", "shuffled labels"),
    "control-frequencies": ("-.", "integers of other pictures"),
    "control-even": (":", "even integers"),
}
SHOWN = (("fid", "FID, lower is closer"), ("agreement", "agreement with the class"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--shown", type=int, default=6)
    parser.add_argument("--samples", help="of which neighbours are sought (default: the first by name)")
    arguments = parser.parse_args()
    sweeps(arguments.out)
    neighbours(arguments.data, arguments.split, arguments.out, arguments.samples or "guidance-*", arguments.shown)


def sweeps(out: Path) -> None:
    results = {path.stem: read_result(path) for path in sorted((out / "results").glob("*.json"))}
    metrics = {name: result.content["metrics"] for name, result in results.items()}
    count = max(result.data.count for result in results.values())
    figure = new_figure(10, 6, "A generator by guidance and temperature", f"{count} samples each")
    with styled():
        axes = figure.subplots(len(SHOWN), 2, squeeze=False)
        for row, (metric, title) in zip(axes, SHOWN, strict=True):
            for axis, (below, lines), colors in zip(
                row, lines_of(metrics, metric).items(), (COLORS, COLORS[::-1]), strict=True
            ):
                for color, (label, points) in zip(colors, lines.items(), strict=False):
                    axis.plot(*zip(*sorted(points.items()), strict=True), "o-", color=color, label=label)
                for name, (style, label) in CONTROLS.items():
                    # samples with shuffled labels are the same pictures, so their FID says nothing
                    if metric in metrics.get(name, {}) and (metric, name) != ("fid", SHUFFLED):
                        axis.axhline(metrics[name][metric], color=INK, lw=1, label=label, ls=style)
                axis.set(xlabel=below, ylabel=title)
        entries: dict[str, Any] = {}
        for axis in axes.flat:
            entries |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        titles = [label for _, label in CONTROLS.values() if label in entries]
        shown = [label for label in entries if label not in titles] + titles
        figure.legend([entries[label] for label in shown], shown, loc="outside right upper")
    write_plot(out / "sweeps.png", figure)


def lines_of(metrics: dict[str, dict[str, float]], metric: str) -> dict[str, dict[str, dict[float, float]]]:
    """By what varies, then by what is held: the points of one metric."""
    by_guidance: dict[str, dict[float, float]] = {}
    by_temperature: dict[str, dict[float, float]] = {}
    for name, values in metrics.items():
        match = re.fullmatch(r"guidance-([\d.]+)(?:-decoder-([\d.]+))?(?:-temperature-([\d.]+))?", name)
        if not match or metric not in values:
            continue
        guidance, decoder, temperature = match.groups()
        if temperature:
            own = metrics.get(f"guidance-{guidance}", {}).get(metric)
            line = by_temperature.setdefault(f"guidance {guidance}", {} if own is None else {1.0: own})
            line[float(temperature)] = values[metric]
        else:
            line = by_guidance.setdefault(f"other decoder, guidance {decoder}" if decoder else OWN, {})
            line[float(guidance)] = values[metric]
    return {"guidance of the generator": dict(sorted(by_guidance.items())), "first temperature": by_temperature}


def neighbours(data: Path, split: str, out: Path, samples: str, shown: int) -> None:
    """The first sample of some classes, and the three nearest training pictures of the class."""
    classifier = load_classifier()
    classes = read_shard(out / "train.shard").classes or []
    with np.load(next(iter(sorted((out / "samples").glob(f"{samples}.npz"))))) as file:
        pixels, labels = file["arr_0"], file["arr_1"]
    source = open_images(data, split=split)
    found = np.array([source.label(i) for i in range(len(source))])
    rows = {}
    for label in np.unique(labels)[:: max(1, len(np.unique(labels)) // shown)][:shown]:
        places = np.flatnonzero(found == label)
        real = np.stack([to_uint8(prepared(source, int(p), pixels.shape[1])).permute(1, 2, 0).numpy() for p in places])
        sample = pixels[np.flatnonzero(labels == label)[:1]]
        distance = np.linalg.norm(features(classifier, real) - features(classifier, sample), axis=1)
        name = first_name(classes[label]) if classes else str(label)
        rows[f"{name}: sample, nearest of {len(places)}"] = [
            Image.fromarray(x) for x in [sample[0], *real[distance.argsort()[:3]]]
        ]
    write_png(out / "neighbours.png", captioned_grid(rows))


@torch.no_grad()
def features(classifier: Classifier, pixels: np.ndarray) -> np.ndarray:
    parts = [
        classifier.features(torch.from_numpy(np.array(pixels[i : i + 32])).permute(0, 3, 1, 2).float() / 127.5 - 1)
        for i in range(0, len(pixels), 32)
    ]
    return torch.cat(parts).numpy()


if __name__ == "__main__":
    main()
