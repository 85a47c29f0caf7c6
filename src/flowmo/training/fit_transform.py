"""Computes the transform start in closed form from streamed statistics of a data set (O12; arch/transform.py).

Three passes over the images. The covariance of patches gives principal components. A sample of components gives the
steps of successive approximation, and the greedy order of the bits. The second moments of the bits of 3 x 3 patches
give the linear maps; the best map of the first k bits needs a part of the same moments, so one pass serves all rates.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arch.patches import patchify
from ..arch.transform import LinearDecoder, TransformEncoder
from ..config import FlowMoConfig
from ..data import SpreadImages, open_split
from ..errors import ConfigError, DataError
from ..files import check_targets
from ..tokenizer import FlowMo
from ..weights import save_model

MOST_COMPONENTS = 64
SAMPLED_PATCHES = 15_000
STEPS = torch.arange(0.5, 2.6, 0.1, dtype=torch.float64)  # first step, in standard deviations of its component
RIDGE, FEW = 1e-5, 0.3  # of the least squares; the second grows where a map has few patches to be fitted on
Images = Callable[[], Iterable[Tensor]]
"""Gives the same batches of images B 3 H W in [-1, 1] each time it is called."""


@dataclass(frozen=True)
class BitPlan:
    """Which component each bit of a token refines, and by how much."""

    allocation: tuple[int, ...]  # the component of each bit, in order of importance
    step: Tensor  # how much each bit adds or takes away


def fit_transform(config: FlowMoConfig, images: Images, seed: int = 0) -> FlowMo:
    """Return a model of ``config`` that is the best linear code of ``images``; its transformer adds nothing yet.

    The allocation of ``config.transform`` is replaced by the fitted one; the transformer's weights are drawn from
    ``seed``. Raises DataError for fewer patches than a patch has numbers.
    """
    assert config.transform is not None
    t = config.transform
    mean, basis = principal_components(images, t.patch_size, max(t.linear_channels, MOST_COMPONENTS))
    plan = plan_bits(sample_components(images, t.patch_size, mean, basis[:, :MOST_COMPONENTS]), config.bits_per_token)
    torch.manual_seed(seed)
    model = FlowMo(replace(config, transform=replace(t, allocation=plan.allocation)))
    encoder, linear = model.encoder, model.decoder.linear
    assert isinstance(encoder, TransformEncoder)
    assert isinstance(linear, LinearDecoder)
    with torch.no_grad():
        for parameter, value in (
            (encoder.mean, mean),
            (encoder.basis, basis[:, : encoder.basis.shape[1]]),
            (encoder.step, plan.step),
            (linear.basis.weight, basis[:, : t.linear_channels]),
            (linear.basis.bias, mean),
        ):
            parameter.copy_(value.half())  # exactly what a file in half precision says, so that bits never change
        fit_linear(linear, encoder, images)
    return model.eval()


class Fitted(NamedTuple):
    """A linear code that was fitted and written."""

    model: FlowMo  # it
    used: int  # images that it was fitted on
    seconds: float  # of work
    bad: dict[str, str]  # names of images that cannot be read, and why


def fit_to_file(
    config: FlowMoConfig,
    data: str,
    target: Path,
    split: str | None = None,
    count: int = 4_000,
    seed: int = 0,
    force: bool = False,
) -> Fitted:
    """Write the file of weights ``target`` with the best linear code of a data set, and return what it is.

    split: of the data; None for "train", where there are several. count: images to use, spread over the data.
    seed: of the transformer's weights. force: whether a file that exists is overwritten.
    Raises ConfigError for a model without a transform, and for a target that cannot be.
    """
    if config.transform is None:
        raise ConfigError("the model has no transform; use the preset flowmo-mini")
    if target.suffix != ".safetensors":
        raise ConfigError(f"--out {target}: the name of a file of weights ends in .safetensors")
    check_targets([target], force=force)
    images = SpreadImages(open_split(data, split, "train")[0], config.image_size, count)
    start = time.perf_counter()
    model = fit_transform(config, images, seed)
    save_model(model, target, about={"weights": "the best linear code", "images": 0, "fitted_on": images.used})
    return Fitted(model, images.used, time.perf_counter() - start, images.bad)


def principal_components(images: Images, patch_size: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the mean, (D,), and the first ``count`` principal components, D count, of patches; float64, D = 3 p p."""
    size = 3 * patch_size**2
    total, square, number = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64), 0
    for batch in images():
        x = patchify(batch, patch_size).flatten(0, 1)
        total += x.sum(0).cpu().double()
        square += (x.T @ x).cpu().double()
        number += len(x)
    if number < size:
        raise DataError(f"{number} patches of {patch_size} pixels are too few for {size} components; give more images")
    mean = total / number
    _, vectors = torch.linalg.eigh(square / number - mean[:, None] * mean)
    return mean, vectors.flip(1)[:, :count]


def sample_components(images: Images, patch_size: int, mean: Tensor, basis: Tensor) -> Tensor:
    """Return the components of patches from all over the data: S C, float64, S about ``SAMPLED_PATCHES``."""
    generator, found = torch.Generator().manual_seed(0), []
    for batch in images():
        x = patchify(batch, patch_size).flatten(0, 1)
        chosen = torch.randperm(len(x), generator=generator)[: max(1, len(x) // 16)]
        found.append((x[chosen].cpu().double() - mean) @ basis)
    components = torch.cat(found)
    return components[torch.randperm(len(components), generator=generator)[:SAMPLED_PATCHES]]


def plan_bits(components: Tensor, bits: int) -> BitPlan:
    """Return the greedy plan of the bits: each next bit goes to the component whose error it lowers most.

    How many bits a component gets is decided with the step that is best for that many. Then each component gets a first
    step, and each next step is half the one before. The first step is chosen for the product of the component's errors
    after every bit, so that all prefixes are good. Bits are ordered by how much error they remove.

    components: S C.
    """
    curves: dict[tuple[int, int], list[float]] = {}

    def error(component: int, count: int) -> float:
        if (component, count) not in curves:
            curves[component, count] = min(
                (errors(components[:, component], first, count) for first in _first_steps(components[:, component])),
                key=lambda curve: curve[-1],
            )
        return curves[component, count][-1]

    counts = [0] * components.shape[1]
    for _ in range(bits):
        gains = [error(k, n) - error(k, n + 1) for k, n in enumerate(counts)]
        counts[max(range(len(gains)), key=gains.__getitem__)] += 1
    gains_of, first_of = {}, {}
    for k, count in enumerate(counts):
        if count:
            x = components[:, k]
            best = min(_first_steps(x), key=lambda first: sum(torch.tensor(errors(x, first, count)[1:]).log()))
            curve = errors(x, best, count)
            gains_of[k], first_of[k] = [a - b for a, b in itertools.pairwise(curve)], best
    allocation: list[int] = []
    steps: list[float] = []
    for _ in range(bits):
        place = {k: allocation.count(k) for k in gains_of}
        k = max((k for k in gains_of if place[k] < counts[k]), key=lambda k: gains_of[k][place[k]])
        steps.append(first_of[k] * 0.5 ** place[k])
        allocation.append(k)
    return BitPlan(tuple(allocation), torch.tensor(steps, dtype=torch.float64))


def errors(x: Tensor, first: float, count: int) -> list[float]:
    """Return the mean squared errors of a component, (S,), after 0, 1, ... ``count`` bits.

    Each time the component is taken from its bits by their best linear map.
    """
    rest, bits, found = x.clone(), [], [float((x * x).mean())]
    for j in range(count):
        bits.append(torch.where(rest > 0, 1.0, -1.0).cpu().double())
        rest = rest - first * 0.5**j * bits[-1]
        table = torch.stack(bits, dim=1)
        moments = table.T @ table + 1e-3 * torch.eye(j + 1, dtype=torch.float64)
        found.append(float(((x - table @ torch.linalg.solve(moments, table.T @ x)) ** 2).mean()))
    return found


def _first_steps(x: Tensor) -> list[float]:
    return (STEPS * x.std()).tolist()


@torch.no_grad()
def fit_linear(linear: LinearDecoder, encoder: TransformEncoder, images: Images) -> None:
    """Fill the maps of ``linear`` with the least-squares map from the kept bits of 3 x 3 patches, for each rate."""
    bits = len(encoder.allocation)
    size = 9 * bits + 1  # a row of bits a neighbour, and the constant
    moments = torch.zeros(size, size, dtype=torch.float64)
    products = torch.zeros(size, linear.channels, dtype=torch.float64)
    number = 0
    for batch in images():
        rows, columns = (side // encoder.patch_size for side in batch.shape[-2:])
        code = torch.where(encoder(batch) > 0, 1.0, -1.0).transpose(1, 2).unflatten(2, (rows, columns))
        seen = F.unfold(code, 3, padding=1).transpose(1, 2).flatten(0, 1)  # (B N) (K 9)
        seen = torch.cat([seen, torch.ones(len(seen), 1)], dim=1)
        wanted = (patchify(batch, encoder.patch_size).flatten(0, 1) - linear.basis.bias) @ linear.basis.weight
        moments += (seen.T @ seen).cpu().double()
        products += (seen.T @ wanted).cpu().double()
        number += len(seen)
    for weight, bias, rate in zip(
        linear.maps.weight.unflatten(0, (-1, linear.channels)),
        linear.maps.bias.unflatten(0, (-1, linear.channels)),  # type: ignore[union-attr]
        linear.rates,
        strict=True,
    ):
        kept = torch.tensor([*range(9 * rate), 9 * bits])
        ridge = RIDGE + FEW * len(kept) / number
        part = moments[kept][:, kept] / number + ridge * torch.eye(len(kept), dtype=torch.float64)
        solved = torch.linalg.solve(part, products[kept] / number)
        weight.zero_()
        weight[:, :rate] = solved[:-1].T.unflatten(1, (rate, 3, 3)).float()
        bias.copy_(solved[-1].float())


def default_rates(bits: int) -> tuple[int, ...]:
    """Return some eight rates from about a seventh of the bits to all of them."""
    return tuple(sorted({max(1, round(bits * (k / 8) ** 1.3)) for k in range(2, 9)}))
