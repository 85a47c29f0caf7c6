"""The coordinate check of muP finds activations that change more, or less, because a model is wider.

Models of several widths take the same few real steps of Stage 1A. On one fixed batch, the size of the activations of
named layers at the start, and how far they have moved after each step, are compared between widths. Under muP every
layer moves as far at any width; under PyTorch's default it moves farther the wider the model is, which is why its
learning rate must be found anew (Tensor Programs V, Figure 5; "all models in muP", Section 4.1; B1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..arch.block import TwoStreamBlock
from ..arch.mup import learning_rate_scales
from ..config import FlowMoConfig, TransformerConfig, to_dict
from ..errors import ConfigError, TrainingError
from ..flow import ThickTailedLogitNormal
from ..stages import LossWeights, draw, mode_matching_loss
from ..tokenizer import FlowMo
from ..training.configuration.config import TrainConfig
from ..training.optimization.state import TrainState

TOLERANCE = 0.25
"""How far from its expected slope a layer may be; the law is one of large widths, and these are few and small."""

NAMES = {True: "muP", False: "PyTorch's default"}
"""How models were widened, in words."""

Built = tuple[FlowMo, Mapping[str, float]]
"""A fresh model and its learning-rate scales by parameter name."""


class Coordinate(NamedTuple):
    """One layer at one width after so many steps; its numbers are geometric means over seeds."""

    factor: int  # the width by the base width
    step: int  # how many steps were taken
    layer: str  # its name
    size: float  # mean |x| of its coordinates x
    change: float  # mean |x - x_0|, from those at the start


class Slope(NamedTuple):
    """The exponents of a layer's growth with width, by least squares; None where it has not moved at some width.

    Under muP both are 0, except for sums over the width of terms that are independent at the start, which begin at
    -1/2: readouts, and the logits of heads that grow.
    Logits stay near -1/2 until queries and keys have learned of each other, so the expected change is a range; those of
    the decoder wait for its gates to open (B6).
    """

    layer: str  # its name
    size: float | None  # the exponent of its size at the start
    change: float | None  # the exponent of its change by the last step
    expected_size: float  # what muP promises
    expected_change: tuple[float, float]  # what muP promises, low and high

    def holds(self, tolerance: float = TOLERANCE) -> bool:
        """Return whether both are what muP promises."""
        if self.size is None or self.change is None:
            return False
        low, high = self.expected_change
        return abs(self.size - self.expected_size) <= tolerance and low - tolerance <= self.change <= high + tolerance


def widened(
    config: FlowMoConfig, factor: int, mup: bool, by: Literal["heads", "head-dim"] = "head-dim"
) -> FlowMoConfig:
    """Return the configuration with encoder and decoder ``factor`` times as wide, by more heads or by wider ones.

    mup: whether the widths of ``config`` are the base widths of muP; else there is no muP.
    """

    def side(c: TransformerConfig) -> TransformerConfig:
        heads = c.heads * factor if by == "heads" else c.heads
        return replace(c, width=c.width * factor, heads=heads, base_width=c.width if mup else None)

    return replace(config, encoder=side(config.encoder), decoder=side(config.decoder))


def build(config: FlowMoConfig) -> Built:
    """Return a fresh model with its learning-rate scales."""
    model = FlowMo(config)
    return model, learning_rate_scales(model)


def coordinates(
    build_at: Callable[[int], Built],
    factors: Sequence[int],
    images: Tensor,
    steps: int = 4,
    learning_rate: float = 1e-3,
    seeds: Sequence[int] = (0,),
    tick: Callable[[], None] = lambda: None,
) -> list[Coordinate]:
    """Train models of every width for ``steps`` updates on ``images`` B 3 H W, on their device, and return what moved.

    Updates are those of training, with Adam and weight normalisation, without perceptual loss, in float32.
    build_at: width factor to a fresh model; the seed is set before each call.
    tick: called after each model.
    Raises ConfigError for fewer than two widths or three steps, TrainingError where a model diverges.
    """
    if len(set(factors)) < 2:
        raise ConfigError(f"a slope needs at least two different widths, got {' '.join(map(str, factors))}")
    if steps < 3:
        raise ConfigError(f"at least 3 steps: gates start closed, so only the third moves every layer; got {steps}")
    found: dict[tuple[int, int, str], list[tuple[float, float]]] = {}
    for factor in factors:
        for seed in seeds:
            torch.manual_seed(seed)
            model, scales = build_at(factor)
            for step, layers in enumerate(
                _trained(model.to(images.device), scales, images, steps, learning_rate, seed)
            ):
                for layer, measured in layers.items():
                    if not all(map(math.isfinite, measured)):
                        raise TrainingError(
                            f"{layer} is no longer finite at step {step}, width x{factor}; lower the learning rate"
                        )
                    found.setdefault((factor, step, layer), []).append(measured)
            tick()
    return [
        Coordinate(*key, _geometric([size for size, _ in values]), _geometric([change for _, change in values]))
        for key, values in found.items()
    ]


def slopes(coordinates: Sequence[Coordinate], wider_heads: bool = True) -> list[Slope]:
    """Return the slopes by layer, in the order of the forward pass.

    wider_heads: whether models were widened so, not by more heads.
    """
    last = max(c.step for c in coordinates)
    layers = dict.fromkeys(c.layer for c in coordinates)

    def fit(layer: str, step: int, value: Callable[[Coordinate], float]) -> float | None:
        points = [(c.factor, value(c)) for c in coordinates if (c.layer, c.step) == (layer, step)]
        if not all(y > 0 and math.isfinite(y) for _, y in points):
            return None
        x, y = (torch.tensor(column, dtype=torch.float64).log2() for column in zip(*points, strict=True))
        return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())

    found = []
    for layer in layers:
        logits = -0.5 if wider_heads and layer.endswith("logits") else 0.0
        start = -0.5 if layer.endswith("readout") else logits
        size, change = fit(layer, 0, lambda c: c.size), fit(layer, last, lambda c: c.change)
        found.append(Slope(layer, size, change, start, (logits, 0.0)))
    return found


class Check(NamedTuple):
    """A coordinate check, by whether models were widened under muP (True) or PyTorch's default (False)."""

    coordinates: dict[bool, list[Coordinate]]  # what was measured
    slopes: dict[bool, list[Slope]]  # what was fitted to it

    @property
    def off(self) -> list[str]:
        """Return the layers that do not behave as muP promises, though widened under it."""
        return [slope.layer for slope in self.slopes[True] if not slope.holds()]

    def content(self) -> dict[str, Any]:
        """Return the slopes, the coordinates that they were fitted to, and the layers that are off, as JSON data."""
        return {
            "slopes": {NAMES[mup]: [slope._asdict() for slope in fit] for mup, fit in self.slopes.items()},
            "coordinates": {
                NAMES[mup]: [point._asdict() for point in points] for mup, points in self.coordinates.items()
            },
            "tolerance": TOLERANCE,
            "off": self.off,
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return a header and a line of text a layer, its slopes under muP beside those expected, and by default."""
        rows = []
        for mup, default in zip(self.slopes[True], self.slopes[False], strict=True):
            low, high = mup.expected_change
            expected = f"{_signed(low)} to 0" if low < high else "0"
            ours = [_signed(mup.size), f"{mup.expected_size:g}", _signed(mup.change), expected]
            held = "off" if mup.layer in self.off else "ok"
            rows.append([mup.layer, *ours, held, _signed(default.size), _signed(default.change)])
        return ["layer", "muP: start", "expected", "change", "expected", "", "default: start", "change"], rows

    def verdict(self) -> str:
        """Return one sentence that says whether muP holds for all layers, or for which it does not."""
        count, off = len(self.slopes[True]), self.off
        if off:
            return f"muP does not hold within {TOLERANCE:g} for {len(off)} of {count} layers: {', '.join(off)}"
        return f"muP holds for all {count} layers (within {TOLERANCE:g})"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


@dataclass(frozen=True)
class CheckRequest:
    """What ``flowmo coordinate-check`` is asked for."""

    name: str  # of the preset
    config: FlowMoConfig  # at base width
    widths: Sequence[int]  # multiples of it
    by: Literal["heads", "head-dim"] = "head-dim"  # what grows
    steps: int = 4  # updates of each model
    learning_rate: float = 1e-3  # at base width
    seeds: int = 2  # models a width

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ConfigError(f"--learning-rate must be positive, got {self.learning_rate:g}")

    def run(self, images: Tensor, tick: Callable[[], None] = lambda: None) -> Check:
        """Return the coordinate check on images B 3 H W in [-1, 1]. tick: called after each model."""
        how = (self.by, self.steps, self.learning_rate, range(self.seeds))
        return check(self.config, self.widths, images, *how, tick)

    def in_words(self, count: int) -> str:
        """Return the request on ``count`` images in words, for a plot."""
        return (
            f"{self.name}, widths x{', x'.join(map(str, self.widths))} by {self.by}; {count} pictures, {self.steps} "
            f"steps at learning rate {self.learning_rate:g}, {self.seeds} models a width\n"
            "solid: encoder, dashed: decoder"
        )

    def content(self, count: int) -> dict[str, Any]:
        """Return the request on ``count`` images as JSON data."""
        content = {"model": to_dict(self.config), "widths": self.widths, "widened_by": self.by, "steps": self.steps}
        return content | {"learning_rate": self.learning_rate, "seeds": self.seeds, "pictures": count}


def check(
    config: FlowMoConfig,
    factors: Sequence[int],
    images: Tensor,
    by: Literal["heads", "head-dim"] = "head-dim",
    steps: int = 4,
    learning_rate: float = 1e-3,
    seeds: Sequence[int] = (0,),
    tick: Callable[[], None] = lambda: None,
) -> Check:
    """Return the coordinate check of ``config``, widened by each factor under muP and without.

    Models are trained a few steps (:func:`coordinates`), and slopes are fitted to what moved.
    """
    found = {}
    for mup in (True, False):

        def build_at(factor: int, mup: bool = mup) -> Built:
            return build(widened(config, factor, mup, by))

        found[mup] = coordinates(build_at, factors, images, steps, learning_rate, seeds, tick)
    return Check(found, {mup: slopes(points, by == "head-dim") for mup, points in found.items()})


def _trained(
    model: FlowMo, scales: Mapping[str, float], images: Tensor, steps: int, learning_rate: float, seed: int
) -> Iterator[dict[str, tuple[float, float]]]:
    """Yield (size, change) by layer, at the start and after each of the updates."""
    state = TrainState.start(model, TrainConfig(learning_rate=learning_rate), scales)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate * group["scale"]
    generator = torch.Generator(images.device).manual_seed(seed)
    start = _activations(model, images)
    for step in range(steps + 1):
        if step:
            state.optimizer.zero_grad()
            draws = draw(images, ThickTailedLogitNormal(), 0.0, generator)
            mode_matching_loss(model.train(), images, draws, LossWeights(perceptual=0.0)).total.backward()
            state.optimizer.step()
            assert state.normalization is not None
            state.normalization.apply()
        now = _activations(model, images)
        yield {
            name: (float(x.abs().mean()), float((x - start[name]).abs().mean()) if step else 0.0)
            for name, x in now.items()
        }


@torch.no_grad()
def _activations(model: FlowMo, images: Tensor) -> dict[str, Tensor]:
    """Return the activations by layer of one pass of encoder and decoder on fixed inputs.

    The decoder is given a fixed code, since that of the encoder flips signs, which does not depend on width alone.
    """
    generator = torch.Generator().manual_seed(0)
    batch, config = len(images), model.config
    noise = torch.randn(images.shape, generator=generator).to(images)
    code = torch.randn(batch, config.num_tokens, config.latent_dim, generator=generator).sign().to(images)
    t = torch.linspace(0.1, 1.0, batch, device=images.device)
    level = t[:, None, None, None]
    found: dict[str, Tensor] = {}
    with _recorded(model.encoder, "encoder", found), _recorded(model.decoder, "decoder", found):
        model.encode(images)
        model.velocity(level * noise + (1 - level) * images, code, t)
    return found


@contextmanager
def _recorded(stack: Any, side: str, found: dict[str, Tensor]) -> Iterator[None]:
    """Note the outputs of a side's inputs, blocks, modulations and readout, and the attention logits."""
    handles = []

    def note(module: nn.Module, name: str) -> None:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            found[name] = output

        handles.append(module.register_forward_hook(hook))

    def note_block(block: TwoStreamBlock, name: str) -> None:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
            found[f"{name} logits"] = _logits(block, *inputs)
            found[f"{name} code"], found[f"{name} image"] = output

        handles.append(block.register_forward_hook(hook))

    for name in ("image_in", "code_in", "readout"):
        note(getattr(stack, name), f"{side} {name}")
    for name, module in stack.named_modules():
        if name == "time_embedding":
            note(module, f"{side} time_embedding")
        elif name.endswith("modulation.linear"):
            note(module, f"{side} {name.removesuffix('.linear').replace('blocks.', 'block ').replace('.', ' ')}")
    for i, block in enumerate(stack.blocks):
        note_block(block, f"{side} block {i}")
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _logits(
    block: TwoStreamBlock,
    code: Tensor,
    image: Tensor,
    table: Tensor,
    code_conditioning: Tensor | None,
    image_conditioning: Tensor | None,
) -> Tensor:
    """Return what the block's softmax sees, B heads queries keys, computed again from the block's inputs."""
    queries, keys = [], []
    parts = (
        (block.code_stream, code, code_conditioning, table[: code.shape[1]]),
        (block.image_stream, image, image_conditioning, table[code.shape[1] :]),
    )
    for stream, x, conditioning, places in parts:
        query, key, _ = stream.attention_inputs(x, stream.modulations(conditioning)[0], places)
        queries += [] if query is None else [query]
        keys.append(key)
    return block.attention_scale * torch.cat(queries, 2) @ torch.cat(keys, 2).transpose(-1, -2)


def _geometric(values: Sequence[float]) -> float:
    """Return the geometric mean, 0 where any value is 0."""
    return math.exp(sum(map(math.log, values)) / len(values)) if all(v > 0 for v in values) else 0.0
