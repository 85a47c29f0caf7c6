"""What training costs in parameters and floating-point operations, counted from the configuration alone (Section 4.1).

Counted are matrix products and convolutions, two operations for each multiplication with its addition; norms, softmax
and the optimizer are left out. A layer costs twice its forward pass to differentiate, once where its input wants no
gradient. ``memory.py`` says what training takes in bytes.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from ..arch.modulation import TIME_CHANNELS
from ..config import FlowMoConfig, TransformerConfig
from ..perceptual.lpips import Network, build_stages
from ..tokenizer import FlowMo
from ..training.config import TrainConfig
from ..training.run_config import RunConfig

_CEILINGS: dict[tuple[torch.device, torch.dtype], float] = {}


class Flops(NamedTuple):
    """Floating-point operations of one training image.

    encoder, decoder: one forward pass, the encoder's with the quantizer. training: forward and backward of both, what
    model FLOP utilisation counts. recomputed: what comes on top where blocks are recomputed in the backward pass.
    perceptual: d_perc of the image and its estimate, with the gradient of the estimate.
    """

    encoder: int
    decoder: int
    training: int
    recomputed: int
    perceptual: int


def parameter_count(config: FlowMoConfig) -> int:
    """Of encoder and decoder, without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in FlowMo(config).parameters())


def flops_per_image(
    config: FlowMoConfig,
    perceptual: Network | None = "vgg",
    perceptual_share: float = 1.0,
    encoder_frozen: bool = False,
) -> Flops:
    """For images of ``config.image_size``, the same in Stage 1A and in the regression of F5.

    A dropped code costs as much as any other. The encoder's initial latent, which a batch shares, counts as one an
    image.
    """
    c, e, d = config, config.encoder, config.decoder
    enter = _linear(_patches(c, e), 3 * e.patch_size**2, e.width)
    initial = _linear(c.num_tokens, c.latent_dim, e.width)
    encoder_blocks = sum(_block(c, e, "none", updates_image=i < e.depth - 1) for i in range(e.depth))
    quantizer = 0
    if c.quantizer.kind == "lfq":  # the mean joint distribution of the codes, a product of two half-group tables
        quantizer = _linear(c.num_tokens, 1, 2**c.bits_per_group) * c.num_groups
    encoder = enter + initial + encoder_blocks + _linear(c.num_tokens, e.width, c.latent_dim) + quantizer

    time_in, time_out = _linear(1, TIME_CHANNELS, d.width), _linear(1, d.width, d.width)
    noisy = _linear(_patches(c, d), 3 * d.patch_size**2, d.width)
    code = _linear(c.num_tokens, c.latent_dim + 1, d.width)
    shared = 2 * _linear(1, d.width, 6 * d.width) if c.modulation == "shared" else 0
    decoder_blocks = sum(_block(c, d, c.modulation, updates_code=i < d.depth - 1) for i in range(d.depth))
    readout = _linear(1, d.width, 2 * d.width) + _linear(_patches(c, d), d.width, 3 * d.patch_size**2)
    decoder = time_in + time_out + noisy + code + shared + decoder_blocks + readout

    no_input_gradient = time_in + noisy  # pixels, noise levels and zeros want none
    if encoder_frozen:
        training = encoder + 3 * decoder - no_input_gradient - code
    else:
        no_input_gradient += enter + (initial if c.initial_latent == "zeros" else 0)
        training = 3 * (encoder + decoder) - no_input_gradient
    distance = 0
    if perceptual is not None:
        distance = round(3 * perceptual_share * _network(perceptual, c.image_size))
    recomputed = decoder_blocks + (0 if encoder_frozen else encoder_blocks)
    return Flops(encoder, decoder, training, recomputed, distance)


def matrix_ceiling(device: torch.device | str, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product here, the best of a fraction of a second; measured once a process.

    The ceiling of utilisation: data sheets promise more than any program gets. The products grow until one takes 30 ms,
    so that a device without arithmetic for ``dtype``, which may be a hundred times slower, is not asked for minutes.
    """
    device = torch.device(device)
    if (device, dtype) in _CEILINGS:
        return _CEILINGS[device, dtype]
    size, largest = (1024, 8192) if device.type == "cuda" else (128, 4096)
    best = 0.0
    while True:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        until, shortest, times = time.perf_counter() + 0.1, float("inf"), 0
        while times < 2 or time.perf_counter() < until:
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
    model: FlowMoConfig, train: TrainConfig, device: torch.device, images_seen: int = 0
) -> tuple[float, float]:
    """FLOPs of one training image at this point of a run, d_perc's not counted, and the FLOP/s that the device has for
    them. A chain of Stage 1B takes a whole forward and backward pass of the decoder a step; what it computes again is
    not counted, nor is a teacher."""
    frozen = train.freeze_encoder_after is not None and images_seen >= train.freeze_encoder_after
    seen = replace(model, image_size=train.crop_size or model.image_size)
    flops = flops_per_image(seen, None, encoder_frozen=frozen)
    s, d, chain, rest = train.sample, train.distill, 0.0, flops.training
    if train.stage == "mode_seeking" and s.mode == "chain" and s.weight:
        chain = s.num_steps
    if train.stage == "distillation":
        chain = sum(d.steps) / len(d.steps)
        rest = flops.training if d.flow_weight else flops.encoder
    return rest + s.share * chain * 3 * flops.decoder, matrix_ceiling(device, precision(train))


def precision(train: RunConfig) -> torch.dtype:
    """Of the matrix products of a training."""
    return torch.bfloat16 if train.precision == "bf16" else torch.float32


def synchronize(device: torch.device) -> None:
    """Wait for all that was asked of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _linear(tokens: int, fan_in: int, fan_out: int) -> int:
    return 2 * tokens * fan_in * fan_out


def _patches(config: FlowMoConfig, side: TransformerConfig) -> int:
    return (config.image_size // side.patch_size) ** 2


def _block(
    config: FlowMoConfig,
    side: TransformerConfig,
    modulation: str,
    updates_code: bool = True,
    updates_image: bool = True,
) -> int:
    """A two-stream block: both streams give keys and values, those that are updated queries and an MLP too (B9)."""
    d, tokens = side.width, {"code": config.num_tokens, "image": _patches(config, side)}
    queries = flops = 0
    for stream, updated in (("code", updates_code), ("image", updates_image)):
        per_token = (4 + 2 * side.mlp_ratio) if updated else 2  # d x d matrices: q k v proj mlp, or k v
        flops += _linear(tokens[stream], d, per_token * d)
        if modulation == "per_block":
            flops += _linear(1, d, (6 if updated else 2) * d)
        queries += tokens[stream] if updated else 0
    return flops + 4 * queries * sum(tokens.values()) * d


def _network(network: Network, side: int) -> int:
    """One forward pass of the convolutions over a square image."""
    flops = 0
    with torch.device("meta"), torch.no_grad():
        x = torch.empty(1, 3, side, side)
        for layer in (layer for stage in build_stages(network) for layer in stage.children()):
            x = layer(x)
            if isinstance(layer, nn.Conv2d):
                flops += 2 * x.shape[2] * x.shape[3] * layer.weight.numel()
    return flops
