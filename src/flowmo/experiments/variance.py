"""The variance over seeds shows where reconstructions from different noise differ (Section 4.2, Figure 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..config import SamplerConfig
from ..data import to_image
from ..errors import ConfigError
from ..text import sampler_in_words
from ..tokenizer import FlowMo
from ..viewing.paper_figures import VarianceRow, variance_figure
from .figure_run import Drawn, FigureRun
from .sampling import codes_of, sample_codes

SAMPLES_SHOWN = 3


@dataclass(frozen=True)
class SeedVariance:
    """One picture sampled from S seeds."""

    # S 3 H W in [-1, 1].
    samples: Tensor
    # H W, over the seeds (divided by S - 1), mean of the three colours, in squares of the range [-1, 1].
    variance: Tensor
    # H W, the squared distance of the mean sample from the picture, mean of the three colours.
    bias: Tensor

    @property
    def deviation(self) -> float:
        """Return how much a pixel typically changes with the seed, the root of the mean variance in 8-bit levels."""
        return 127.5 * float(self.variance.mean().sqrt())

    @property
    def share(self) -> float:
        """Return the part of a sample's mean squared error, 0 to 1, that is chance.

        It is variance / (variance + bias), with the variance divided by S, so that the two add up to the error of these
        samples exactly.
        """
        count = len(self.samples)
        chance = float(self.variance.mean()) * (count - 1) / count
        error = chance + float(self.bias.mean())
        return chance / error if error else 0.0


def seed_variance(
    model: FlowMo,
    images: Tensor,
    seeds: Sequence[int],
    sampler: SamplerConfig | None = None,
    batch_size: int = 16,
) -> Iterator[SeedVariance]:
    """Sample each of images B 3 H W in [-1, 1] from the same ``seeds``, and yield one result an image, in order.

    The code of an image is the same for all its samples, so that all their variance is p(x | c)'s.
    sampler: the model's own unless given.
    Raises ConfigError for fewer than two seeds.
    """
    if len(seeds) < 2:
        raise ConfigError(f"a variance needs at least 2 seeds, got {len(seeds)}")
    size = (images.shape[2], images.shape[3])
    for image, code in zip(images, codes_of(model, images, batch_size), strict=True):
        same = code.expand(len(seeds), *code.shape)
        samples = sample_codes(model, same, size, seeds, sampler, batch_size=batch_size)
        spread = samples.cpu().double()
        yield SeedVariance(
            samples,
            spread.var(0).mean(0).float(),
            (spread.mean(0) - image.cpu()).square().mean(0).float(),
        )


def variance_content(names: Sequence[str], found: Sequence[SeedVariance]) -> dict[str, Any]:
    """Return the numbers of each picture, and their means, as JSON data; ``names`` has one a picture."""
    images = [
        {
            "variance": float(one.variance.mean()),
            "deviation_8bit": one.deviation,
            "share_of_squared_error": one.share,
        }
        for one in found
    ]
    mean = {key: float(np.mean([image[key] for image in images])) for key in images[0]}
    return {"mean": mean, "pictures": [{"name": n, **one} for n, one in zip(names, images, strict=True)]}


def draw_variance(run: FigureRun, seeds: range, shown: int, on_done: Callable[[], None] = lambda: None) -> Drawn:
    """Return Figure 8 of one model: its images sampled from the same ``seeds``, and the first ones drawn.

    shown: how many are. on_done: called after each image.
    """
    found: list[SeedVariance] = []
    rows: list[VarianceRow] = []
    sampler = run.samplers[0]
    for image, one in zip(
        run.images, seed_variance(run.models[0], run.images, seeds, sampler, run.request.batch_size), strict=True
    ):
        if len(found) < shown:
            samples = [to_image(sample) for sample in one.samples[:SAMPLES_SHOWN]]
            rows.append(VarianceRow(to_image(image), samples, 127.5 * one.variance.sqrt().numpy()))
        found.append(one)
        on_done()
    content = variance_content(run.first.names, found)
    deviation, share = content["mean"]["deviation_8bit"], content["mean"]["share_of_squared_error"]
    words = (
        f"{run.labels[0]}, {sampler_in_words(sampler)}; seeds {seeds[0]} to {seeds[-1]}, the same for all pictures\n"
        f"{len(found)} pictures: mean standard deviation {deviation:.1f} of 255 levels; chance is {share:.0%} of the "
        "squared error"
    )
    return Drawn(content, variance_figure(rows, f"Reconstructions from {len(seeds)} seeds", words), words)
