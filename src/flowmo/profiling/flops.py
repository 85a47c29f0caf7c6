"""The parameters and floating-point operations of training are counted from the configuration alone (Section 4.1).

PyTorch's counter counts matrix products and convolutions, two operations for each multiplication with its addition;
norms, softmax and the optimizer are left out. ``memory.py`` says what training takes in bytes.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..config import FlowMoConfig
from ..generation import NO_CLASS, Generator, GeneratorConfig
from ..perceptual.lpips import Network, build_stages
from ..presets import at_size
from ..tokenizer import FlowMo
from ..training.configuration.config import ImageRunConfig
from ..training.configuration.run_config import RunConfig
from ..training.generator import GeneratorTrainConfig

_CEILINGS: dict[tuple[torch.device, torch.dtype], float] = {}


class Flops(NamedTuple):
    """Floating-point operations of one training image."""

    encoder: int  # one forward pass, with the quantizer
    decoder: int  # one forward pass
    training: int  # forward and backward of both, what model FLOP utilisation counts
    recomputed: int  # what comes on top where blocks are recomputed in the backward pass
    perceptual: int  # d_perc of the image and its estimate, with the gradient of the estimate


def parameter_count(config: FlowMoConfig) -> int:
    """Return the number of parameters of encoder and decoder, without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in FlowMo(config).parameters())


def flops_per_image(
    config: FlowMoConfig,
    perceptual: Network | None = "vgg",
    perceptual_share: float = 1.0,
    encoder_frozen: bool = False,
    perceptual_crop: int | None = None,
) -> Flops:
    """Return what one image of ``config.image_size`` costs, the same in Stage 1A and in the regression of F5.

    perceptual_share, perceptual_crop: the share of the images that d_perc sees, and the side of the part that it sees.

    The networks run on the meta device, which computes shapes and no values, under PyTorch's own counter. A dropped
    code costs as much as any other. The encoder's initial latent, which a batch shares, counts as one an image.
    """
    side = min(config.image_size, perceptual_crop or config.image_size)
    distance = 0 if perceptual is None else round(perceptual_share * _distance(perceptual, side))
    return _tokenizer(config, encoder_frozen)._replace(perceptual=distance)


@functools.cache
def _tokenizer(config: FlowMoConfig, encoder_frozen: bool) -> Flops:
    """Return what one image costs without d_perc, of passes whose forward part is counted apart from the backward."""
    with torch.device("meta"):
        model = FlowMo(config).train()
        image = torch.empty(1, 3, config.image_size, config.image_size)
        t = torch.empty(1)
        code = torch.empty(1, config.num_tokens, config.latent_dim, requires_grad=not encoder_frozen)
    model.encoder.requires_grad_(not encoder_frozen)
    # The quantizer asks for autocast, which the meta device has none of; it is small enough to run.
    latent = torch.zeros(code.shape, requires_grad=not encoder_frozen)
    with _counting() as encoder:
        encoded, quantized = model.encode(image), model.quantize(latent)
    with _counting() as decoder:
        velocity = model.velocity(image, code, t)
    with _counting() as backward:
        velocity.sum().backward()
        if not encoder_frozen:
            (quantized.code.sum() + quantized.losses.entropy + quantized.losses.commitment).backward()
            encoded.sum().backward()
    recomputed = _in_blocks(decoder) + (0 if encoder_frozen else _in_blocks(encoder))
    forward = encoder.get_total_flops(), decoder.get_total_flops()
    return Flops(*forward, sum(forward) + backward.get_total_flops(), recomputed, 0)


@functools.cache
def generator_flops(config: GeneratorConfig) -> int:
    """Return the operations of one training image of a generator, forward and backward."""
    with torch.device("meta"):
        model = Generator(config)
        tokens = torch.zeros(1, config.sequence_length, dtype=torch.long)
        labels = torch.full((1,), NO_CLASS)
        with _counting() as counter:
            model(tokens, labels, torch.ones(tokens.shape, dtype=torch.bool)).sum().backward()
    return counter.get_total_flops()


def matrix_ceiling(device: torch.device | str, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large square matrix product here, the best of a fraction of a second.

    It is the ceiling of utilisation, since data sheets promise more than any program gets. It is measured once a
    process.
    The products grow until one takes 30 ms, so that a device without arithmetic for ``dtype``, which may be a hundred
    times slower, is not asked for minutes.
    """
    device = torch.device(device)
    if (device, dtype) in _CEILINGS:
        return _CEILINGS[device, dtype]
    size, largest = (1024, 8192) if device.type == "cuda" else (128, 4096)
    best = 0.0
    while True:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        until, shortest, times = time.perf_counter() + 0.1, float("inf"), 0
        # A product that is over at once says little of the ceiling, and tells quickly that a larger one is wanted.
        while times < 2 or (time.perf_counter() < until and (shortest > 0.001 or size == largest)):
            synchronize(device)
            start = time.perf_counter()
            a @ b
            synchronize(device)
            shortest, times = min(shortest, time.perf_counter() - start), times + 1
        best = max(best, 2 * size**3 / shortest)
        if shortest > 0.03 or size == largest:
            break
        size *= 2
    _CEILINGS[device, dtype] = best
    return best


def utilisation_cost(
    model: FlowMoConfig, train: ImageRunConfig, device: torch.device, images_seen: int = 0
) -> tuple[float, float]:
    """Return the FLOPs of one training image at this point of a run, and the FLOP/s that the device has for them.

    Those of d_perc are not counted.
    A chain of Stage 1B takes a whole forward and backward pass of the decoder a step; what it computes again is not
    counted, nor is a teacher.
    """
    frozen = train.encoder_images is not None and images_seen >= train.encoder_images
    seen = at_size(model, train.crop_size or model.image_size)
    flops = flops_per_image(seen, None, encoder_frozen=frozen)
    rest = flops.training if train.has_flow_term else flops.encoder
    return rest + train.chain_steps * 3 * flops.decoder, matrix_ceiling(device, precision(train))


def precision(train: RunConfig) -> torch.dtype:
    """Return the precision of the matrix products of a training."""
    return torch.bfloat16 if train.chosen_precision == "bf16" else torch.float32


def synchronize(device: torch.device) -> None:
    """Wait for all that was asked of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _counting() -> Iterator[FlopCounterMode]:
    """Count what runs within, attention as the two matrix products that it is."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def _in_blocks(counter: FlopCounterMode) -> int:
    """Return the operations within the two-stream blocks, which are what is recomputed."""
    counts = counter.get_flop_counts().items()
    return sum(sum(flops.values()) for name, flops in counts if re.fullmatch(r"\w+\.blocks\.\d+", name))


@functools.cache
def _distance(network: Network, side: int) -> int:
    """Return what d_perc costs: the image's features, those of its estimate, and the gradient of the estimate."""
    with torch.device("meta"):
        layers = build_stages(network).requires_grad_(False)
        image, estimate = torch.empty(1, 3, side, side), torch.empty(1, 3, side, side, requires_grad=True)
    with _counting() as counter:
        for x in (image, estimate):
            for stage in layers:
                x = stage(x)
        x.sum().backward()
    return counter.get_total_flops()


def tokenizer_cost(model: FlowMo, train: ImageRunConfig, device: torch.device, images_seen: int) -> tuple[float, float]:
    """Return :func:`utilisation_cost` of a model, as ``training.Plan.cost`` asks for it."""
    return utilisation_cost(model.config, train, device, images_seen)


def generator_cost(
    model: Generator, train: GeneratorTrainConfig, device: torch.device, images_seen: int
) -> tuple[float, float]:
    """Return the FLOPs of one training image of a generator, and the FLOP/s that the device has for them."""
    return generator_flops(model.config), matrix_ceiling(device, precision(train))
