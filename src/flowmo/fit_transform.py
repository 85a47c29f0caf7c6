"""Computes the transform start in closed form from streamed statistics of a data set (O12; arch/transform.py).

Three passes over the images. The covariance of patches gives principal components. A sample of components gives the
classes: they are split one bit after the other, and after each split patches go to the class that codes them best,
whose principal components are then computed anew, as in Lloyd's algorithm. The moments of what the bits say of 3 x 3
patches give the linear maps of each rate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .arch.patches import patchify
from .arch.transform import LinearDecoder, TransformEncoder, class_signs, nearest_class, successive
from .config import MOST_BITS, FlowMoConfig
from .data import SpreadImages, open_split
from .errors import ConfigError, DataError
from .files import check_targets
from .progress import Progress
from .tokenizer import FlowMo
from .weights import save_model

SAMPLED_PATCHES, FEWEST_IN_CLASS = 60_000, 300
STEPS = torch.arange(0.5, 2.6, 0.05).tolist()  # first step, in standard deviations of its component
PASSES = 3  # over the images
ROUNDS, LAST_ROUNDS = 3, 6  # of Lloyd's algorithm after each split, and after the last
RIDGE, FEW, FACTOR_RIDGE = 1e-5, 0.3, 1e-2  # of the least squares; the second grows where there are few patches
Images = Callable[[], Iterable[Tensor]]
"""Gives the same batches of images B 3 H W in [-1, 1] each time it is called."""


class Classes(NamedTuple):
    """The classes of patches, and what their bits mean."""

    means: Tensor  # of the classes, classes M
    vectors: Tensor  # what each bit of a token adds or takes away, classes J M


class Steps(NamedTuple):
    """How a component with standard deviation 1 is approximated by 0, 1, ... bits."""

    first: list[float]  # what the first bit adds or takes away; each next one half of that
    error: list[float]  # the mean squared error that is left


def fit_transform(
    config: FlowMoConfig, images: Images, seed: int = 0, say: Callable[[str], None] = lambda line: None
) -> FlowMo:
    """Return a model of ``config`` that is the best closed-form code of ``images``; its transformer adds nothing yet.

    seed: the transformer's weights are drawn from it. say: gets a line before each of the steps.
    Raises DataError for fewer patches than a patch has numbers.
    """
    assert config.transform is not None
    t = config.transform
    say(f"1 of 3: principal components of patches of {t.patch_size} x {t.patch_size} pixels")
    mean, basis = principal_components(images, t.patch_size, t.num_components)
    sample = sample_components(images, t.patch_size, mean, basis)
    say(f"2 of 3: {2**t.class_bits} classes of patches")
    classes = fit_classes(sample, t.class_bits, config.bits_per_token - t.class_bits)
    torch.manual_seed(seed)
    model = FlowMo(config)
    encoder, linear = model.encoder, model.decoder.linear
    assert isinstance(encoder, TransformEncoder)
    assert isinstance(linear, LinearDecoder)
    with torch.no_grad():
        for parameter, value in (
            (encoder.mean, mean),
            (encoder.basis, basis),
            (encoder.class_means, classes.means),
            (encoder.class_vectors, classes.vectors),
            (linear.class_means, classes.means),
            (linear.class_vectors, classes.vectors),
            (linear.basis.weight, basis),
            (linear.basis.bias, mean),
        ):
            parameter.copy_(value.half())  # exactly what a file in half precision says, so that bits never change
        fit_factors(linear, encoder, sample)
        say(f"3 of 3: linear maps of 3 x 3 patches at {len(t.rates)} rates")
        fit_linear(linear, encoder, images)
    return model.eval()


class Fitted(NamedTuple):
    """A closed-form code that was fitted and written."""

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
    progress: Progress | None = None,
) -> Fitted:
    """Write the file of weights ``target`` with the closed-form code of a data set, and return what it is.

    split: of the data; None for "train", where there are several. count: images to use, spread over the data.
    seed: of the transformer's weights. force: whether a file that exists is overwritten.
    progress: is told how far it is.
    Raises ConfigError for a model without a transform, and for a target that cannot be.
    """
    if config.transform is None:
        raise ConfigError("the model has no transform; use the preset flowmo-mini")
    if target.suffix != ".safetensors":
        raise ConfigError(f"--out {target}: the name of a file of weights ends in .safetensors")
    check_targets([target], force=force)
    progress = progress or Progress(0, "images")
    images = SpreadImages(open_split(data, split, "train")[0], config.image_size, count, progress.advance)
    progress.expect(PASSES * len(images.places))
    start = time.perf_counter()
    model = fit_transform(config, images, seed, progress.say)
    save_model(model, target, about={"weights": "the closed-form code", "images": 0, "fitted_on": images.used})
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
    """Return the components of patches from all over the data: S M, float32, S at most ``SAMPLED_PATCHES``."""
    generator, found = torch.Generator().manual_seed(0), []
    for batch in images():
        x = patchify(batch, patch_size).flatten(0, 1)
        chosen = torch.randperm(len(x), generator=generator)[: max(1, len(x) // 8)]
        found.append((x[chosen].cpu().double() - mean).float() @ basis.float())
    components = torch.cat(found)
    return components[torch.randperm(len(components), generator=generator)[:SAMPLED_PATCHES]]


@torch.no_grad()
def fit_classes(components: Tensor, class_bits: int, bits: int) -> Classes:
    """Return 2^class_bits classes of components S M, each with its code of ``bits`` bits.

    The first class is all patches. Each is split where its components' sizes vary most; then patches go to the class
    that codes them best, and the classes are computed anew.
    """
    of = torch.zeros(len(components), dtype=torch.long)
    for depth in range(class_bits + 1):
        if depth:
            of = _split(components, of)
        steps = fit_steps(_normalized(components, of, 2**depth))
        for _ in range(LAST_ROUNDS if depth == class_bits else ROUNDS):
            found = [plan_class(part, bits, steps) for part in _members(components, of, 2**depth)]
            classes = Classes(torch.stack([c.means for c in found]), torch.stack([c.vectors for c in found]))
            if not depth:
                break
            parts = components.split(512)
            of = torch.cat([nearest_class(successive(part, *classes).error) for part in parts])
    return classes


def _members(components: Tensor, of: Tensor, count: int) -> list[Tensor]:
    """Return the components of each class; one that is nearly empty gets some of all."""
    parts = [components[of == c] for c in range(count)]
    return [part if len(part) >= FEWEST_IN_CLASS else torch.cat([part, components[:FEWEST_IN_CLASS]]) for part in parts]


def _split(components: Tensor, of: Tensor) -> Tensor:
    """Return the class of each patch (S,) after each class has become two.

    They are patches on both sides of the median along what varies most in the sizes of components.
    """
    new = 2 * of
    for c in range(int(of.max()) + 1):
        members = (of == c).nonzero()[:, 0]
        if len(members) < 2:
            continue
        variance, basis, centred = _principal(components[members])
        sizes = ((centred @ basis).abs() / variance.sqrt() + 0.1).log()[:, :40]
        along = torch.linalg.eigh(torch.cov(sizes.T))[1][:, -1]
        place = sizes @ along
        new[members] += (place > place.median()).long()
    return new


def _principal(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return variances (M,) and principal components M M of rows S M, and the rows without their mean.

    The largest variance comes first.
    """
    centred = x - x.mean(0)
    square = centred.cpu().double()
    moments = square.T @ square / len(x) + 1e-9 * torch.eye(x.shape[1], dtype=torch.float64)
    variance, basis = torch.linalg.eigh(moments)
    return variance.flip(0).clamp_min(1e-12).float(), basis.flip(1).float(), centred


def _normalized(components: Tensor, of: Tensor, count: int) -> Tensor:
    """Return the principal components of all classes, each with a standard deviation of 1, as one sample."""
    found = []
    for part in _members(components, of, count):
        variance, basis, centred = _principal(part)
        found.append((centred[:300] @ basis[:, :16] / variance[:16].sqrt()).flatten())
    every = torch.cat(found)
    return every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:40_000]]


def fit_steps(x: Tensor) -> Steps:
    """Return the steps for a sample (S,).

    For each number of bits it is the first step with the least product of the errors after every bit, so that all
    prefixes are good.
    """
    x = x.cpu().double()
    x = x / x.square().mean().sqrt()
    first, error = [0.0], [1.0]
    for count in range(1, MOST_BITS + 1):
        best = min(STEPS, key=lambda step: math.log(math.prod(errors(x, step, count)[1:])))
        first.append(best)
        error.append(errors(x, best, count)[-1])
    return Steps(first, error)


def errors(x: Tensor, first: float, count: int) -> list[float]:
    """Return the mean squared errors of a component, (S,), after 0, 1, ... ``count`` bits.

    Each time the component is taken from its bits by their best linear map.
    """
    rest, bits, found = x.clone(), [], [float((x * x).mean())]
    for j in range(count):
        bits.append(torch.where(rest > 0, 1.0, -1.0).to(rest))
        rest = rest - first * 0.5**j * bits[-1]
        table = torch.stack(bits, dim=1)
        moments = table.T @ table + 1e-3 * torch.eye(j + 1, dtype=torch.float64)
        found.append(float(((x - table @ torch.linalg.solve(moments, table.T @ x)) ** 2).mean()))
    return found


def plan_class(components: Tensor, bits: int, steps: Steps) -> Classes:
    """Return the mean (M,) and the vectors J M of a class of patches, components S M, by a greedy plan of its bits.

    Each next bit goes to the principal component whose error it lowers most.
    """
    variance, basis, _ = _principal(components)
    counts, order = [0] * len(variance), []
    gains = (variance * (steps.error[0] - steps.error[1])).tolist()
    for _ in range(bits):
        k = max(range(len(gains)), key=gains.__getitem__)
        order.append(k)
        counts[k] += 1
        full = counts[k] == MOST_BITS
        gains[k] = 0.0 if full else float(variance[k]) * (steps.error[counts[k]] - steps.error[counts[k] + 1])
    seen = [0] * len(variance)
    vectors = torch.empty(bits, len(variance))
    for j, k in enumerate(order):
        vectors[j] = steps.first[counts[k]] * 0.5 ** seen[k] * variance[k].sqrt() * basis[:, k]
        seen[k] += 1
    return Classes(components.mean(0), vectors)


@torch.no_grad()
def fit_factors(linear: LinearDecoder, encoder: TransformEncoder, components: Tensor) -> None:
    """Fill the factors of ``linear``: the least squares of a class's kept bits to its components S M, for each rate."""
    code = torch.sign(encoder.approximate(components[None]))[0]
    signs, bits = code.split([linear.class_bits, code.shape[-1] - linear.class_bits], dim=-1)
    of = (signs @ class_signs(linear.class_bits).T).argmax(-1)
    linear.factors.fill_(1.0)
    for c, (mean, vectors) in enumerate(zip(linear.class_means, linear.class_vectors, strict=True)):
        own, wanted = bits[of == c], components[of == c] - mean
        shared, weight = vectors @ vectors.T, FACTOR_RIDGE * vectors.square().sum(1) + 1e-12
        for r, rate in enumerate(linear.rates):
            kept = max(0, rate - linear.class_bits)
            if not kept or len(own) < FEWEST_IN_CLASS // 10:
                continue
            moments = own[:, :kept].T @ own[:, :kept] / len(own) * shared[:kept, :kept] + torch.diag(weight[:kept])
            products = (wanted @ vectors[:kept].T * own[:, :kept]).mean(0) + weight[:kept]
            linear.factors[r, c, :kept] = torch.linalg.solve(moments.cpu().double(), products.cpu().double()).float()


@torch.no_grad()
def fit_linear(linear: LinearDecoder, encoder: TransformEncoder, images: Images) -> None:
    """Fill the maps of ``linear`` with the least-squares map from what 3 x 3 patches' bits say, for each rate."""
    size = 9 * linear.channels + 1  # the components of each neighbour, and the constant
    moments = torch.zeros(len(linear.rates), size, size, dtype=torch.float64)
    products = torch.zeros(len(linear.rates), size, linear.channels, dtype=torch.float64)
    number = 0
    for batch in images():
        rows, columns = (side // encoder.patch_size for side in batch.shape[-2:])
        whole = torch.where(encoder(batch) > 0, 1.0, -1.0)
        wanted = (patchify(batch, encoder.patch_size).flatten(0, 1) - linear.basis.bias) @ linear.basis.weight
        for r, rate in enumerate(linear.rates):
            code = torch.where(torch.arange(whole.shape[-1]) < rate, whole, 0.0)
            patches = linear.patches(code, linear.mixture(code)).transpose(1, 2).unflatten(2, (rows, columns))
            seen = F.unfold(patches, 3, padding=1).transpose(1, 2).flatten(0, 1)  # (B N) (M 9)
            seen = torch.cat([seen, torch.ones(len(seen), 1)], dim=1)
            moments[r] += (seen.T @ seen).cpu().double()
            products[r] += (seen.T @ wanted).cpu().double()
        number += len(wanted)
    for r, (weight, bias) in enumerate(
        zip(
            linear.maps.weight.unflatten(0, (-1, linear.channels)),
            linear.maps.bias.unflatten(0, (-1, linear.channels)),  # type: ignore[union-attr]
            strict=True,
        )
    ):
        mean_square = moments[r].diagonal().mean() / number
        ridge = (RIDGE + FEW * size / number) * min(1.0, float(mean_square))
        solved = torch.linalg.solve(
            moments[r] / number + ridge * torch.eye(size, dtype=torch.float64), products[r] / number
        )
        weight.copy_(solved[:-1].T.unflatten(1, (linear.channels, 3, 3)).float())
        bias.copy_(solved[-1].float())


def default_rates(bits: int) -> tuple[int, ...]:
    """Return some eight rates from about a seventh of the bits to all of them."""
    return tuple(sorted({max(1, round(bits * (k / 8) ** 1.3)) for k in range(2, 9)}))
