"""A device is held to what the CPU computes in float32, in each precision and way of running a model.

The CPU's float32 is what the tests hold to the released model's own numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..flow import interpolate, seeded_noise, velocity_target
from ..quantize.tokens import Tokens
from ..tokenizer import FlowMo
from ..training.processes.distributed import World, blocks, spread

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LEAST_TOKENS = {"float32": 0.995, "bfloat16": 0.80}
"""The share of integers that must agree; it is below 1 since a channel near 0 changes its sign by chance."""
MOST_IMAGE = {"float32": 1e-3, "bfloat16": 0.05}
"""The mean difference of pixels in [-1, 1] that samples of the same tokens and noise may have."""
MOST_GRADIENT = {"float32": 0.01, "bfloat16": 0.2}
"""The norm of the difference of all gradients, by that of the gradients, that they may have."""


class Agreement(NamedTuple):
    """One way to run a model, and how far it is from the CPU's float32; what was not compared is None."""

    name: str  # of the way, in words
    tokens: float | None  # the share of integers that agree
    image: float | None  # the mean difference of pixels in [-1, 1]
    loss: float | None  # its relative difference
    gradient: float | None  # its relative difference
    good: bool  # whether all is within the bounds
    why: str | None = None  # how it failed, where it did


def agreements(
    model: FlowMo, images: Tensor, device: torch.device, compilers: dict[str, bool | str]
) -> Iterator[Agreement]:
    """Yield each way to run ``model`` on ``device``, first to sample and then to train.

    model: on the CPU in float32.
    images: B 3 H W in [-1, 1].
    compilers: by name, what ``prepare(compile=...)`` takes; any but False compiles training's blocks too.
    """
    tokens = model.tokenize(images)
    samples = model.detokenize(tokens)
    loss, gradient = _gradients(copy.deepcopy(model), images, torch.float32, torch.device("cpu"))
    for kind in DTYPES:
        for name, compiler in compilers.items():
            label = f"{kind}, {name}"
            try:
                yield _sampling(model, images, tokens, samples, device, kind, label, compiler)
            except Exception as error:  # a compiler or a kernel that fails on this device is what is asked for
                yield _failed(f"sample, {label}", error)
    for kind, dtype in DTYPES.items():
        for name, compiler in compilers.items():
            for recompute in (False, True) if kind == "bfloat16" else (False,):
                label = f"train, {kind}, {name}{', recomputed' if recompute else ''}"
                try:
                    ready = copy.deepcopy(model).to(device)
                    spread(ready, World(device=device), recompute=recompute)
                    for block in blocks(ready) if compiler else ():
                        block.compile(**({"backend": compiler} if isinstance(compiler, str) else {}))
                    found, gradients = _gradients(ready, images, dtype, device)
                except Exception as error:
                    yield _failed(label, error)
                    continue
                off = float((gradients - gradient).norm() / gradient.norm())
                yield Agreement(label, None, None, abs(found / loss - 1), off, off <= MOST_GRADIENT[kind])
                torch.compiler.reset()


def _failed(name: str, error: Exception) -> Agreement:
    reason = (str(error).splitlines() or [""])[0][:200]
    return Agreement(name, None, None, None, None, False, f"{type(error).__name__}: {reason}")


def _sampling(
    model: FlowMo,
    images: Tensor,
    tokens: Tokens,
    samples: Tensor,
    device: torch.device,
    kind: str,
    label: str,
    compiler: bool | str,
) -> Agreement:
    ready = copy.deepcopy(model).prepare(device, DTYPES[kind], compile=compiler, chunk_size=len(images))
    same = float((ready.tokenize(images).indices == tokens.indices).float().mean())
    again = [ready.detokenize(tokens).float().cpu() for _ in range(3)][-1]  # a graph is replayed by the third call
    off = float((again - samples).abs().mean())
    good = same >= LEAST_TOKENS[kind] and off <= MOST_IMAGE[kind]
    return Agreement(f"sample, {label}", same, off, None, None, good)


def _gradients(model: FlowMo, images: Tensor, dtype: torch.dtype, device: torch.device) -> tuple[float, Tensor]:
    """Return a flow loss, with fixed noise and levels, and all its gradients as one vector on the CPU."""
    model.train()
    x = images.to(device)
    z = seeded_noise(0, len(x), tuple(x.shape[1:])).to(device)
    t = torch.linspace(0.2, 0.9, len(x)).to(device)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        latent = model.encode(x)
        # the signs are those of this pass, so that no flipped bit hides what the kernels do
        velocity = model.velocity(interpolate(x, z, t), latent.float(), t)
    loss = (velocity.float() - velocity_target(x, z)).square().mean()
    loss.backward()
    parts = [p.grad.flatten().float().cpu() for p in model.parameters() if p.grad is not None]
    return float(loss.detach()), torch.cat(parts)
