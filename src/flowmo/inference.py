"""How a model runs for its users: device, precision, compiled passes, chunks. Its equations know none of these."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor, nn

from .config import FlowMoConfig
from .devices import put_on
from .errors import ConfigError

TOKENS_AT_ONCE = {"cpu": 2**12, "cuda": 2**17}
"""Latent and image tokens that a network is given at once: as many as fit a cache, or fill a GPU and fit it."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Types of the weights, by the names that commands and results have for them."""


class Preparable(Protocol):
    """A model with ``FlowMo.prepare``."""

    def prepare(self, *, dtype: torch.dtype, compile: bool, chunk_size: int | None) -> Any: ...


Model = TypeVar("Model", bound=Preparable)
Given = ParamSpec("Given")
Result = TypeVar("Result")


def own_precision(verb: Callable[Given, Result]) -> Callable[Given, Result]:
    """Return the function made to run outside of any ``torch.autocast`` around it.

    Its results are those of the weights' own precision, which ``prepare(dtype=...)`` sets.
    """

    @wraps(verb)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return verb(*args, **kwargs)

    return run


@dataclass(frozen=True)
class Inference:
    """How ``tokenize`` and ``detokenize`` run."""

    chunk_size: int | None = None
    """Images at a time; None for as many as TOKENS_AT_ONCE allows."""
    encoder_pass: Callable[..., Tensor] | None = None
    """The encoder's blocks compiled for batches of ``chunk_size`` and no other; None runs the module's own."""
    decoder_pass: Callable[..., Tensor] | None = None
    """The decoder's, likewise."""

    def __reduce__(self) -> tuple[type[Inference], tuple[int | None]]:
        """Return how copies, and models out of a pickle, are made.

        They are not compiled: compiled passes belong to one model's weights.
        """
        return Inference, (self.chunk_size,)

    def encoder_forward(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return the encoder's pass: the compiled one, or ``forward``, the module's own."""
        return _compiled_or(self.encoder_pass, forward)

    def decoder_forward(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return the decoder's pass: the compiled one where no gradients are wanted, or ``forward``."""
        return _compiled_or(None if torch.is_grad_enabled() else self.decoder_pass, forward)

    def images_at_once(self, config: FlowMoConfig, size: tuple[int, int], device: torch.device) -> int:
        """Return how many images of this height and width the networks are given at a time."""
        if self.chunk_size is not None:
            return self.chunk_size
        patches = size[0] * size[1] // min(config.encoder.patch_size, config.decoder.patch_size) ** 2
        budget = TOKENS_AT_ONCE.get(device.type, TOKENS_AT_ONCE["cuda"])
        return max(1, budget // (config.tokens_of(size) + patches))

    def chunks(self, count: int, chunk: int) -> Iterator[tuple[slice | list[int], int]]:
        """Yield which images of a batch come together, and how many of them are wanted.

        A compiled pass takes whole chunks alone, so the last image stands for those that lack. An empty batch has one
        empty chunk.
        """
        for first in range(0, max(count, 1), chunk):
            here = min(chunk, count - first)
            if self.decoder_pass is None or here == 0:
                yield slice(first, first + here), here
            else:
                yield [min(first + i, count - 1) for i in range(chunk)], here


def prepare(
    model: nn.Module,
    encoder_pass: Callable[..., Tensor],
    decoder_pass: Callable[..., Tensor],
    device: str | torch.device | None,
    dtype: torch.dtype | None,
    compile: bool | str,
    chunk_size: int | None,
) -> Inference:
    """Put a model on its device in its precision, for evaluation, and return how it is to run.

    The arguments are those of ``FlowMo.prepare``. Raises ConfigError for what cannot be.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ConfigError(f"chunk_size must be at least 1, got {chunk_size}")
    if dtype is not None and not dtype.is_floating_point:
        raise ConfigError(f"dtype must be one of weights, float32, bfloat16 or float16; got {dtype}")
    put_on(model, device, dtype).eval()
    if not compile:
        return Inference(chunk_size)
    how: dict[str, Any] = {"backend": compile} if isinstance(compile, str) else {}
    if not how and next(model.parameters()).device.type == "cuda":
        how = {"mode": "reduce-overhead"}
    try:
        compiled = [torch.compile(f, fullgraph=True, dynamic=False, **how) for f in (encoder_pass, decoder_pass)]
    except Exception as error:  # the compiler has errors of its own, for an unknown backend among others
        raise ConfigError(f"torch.compile does not take {compile!r}: {str(error)[:200]}") from None
    return Inference(chunk_size, *compiled)


def _compiled_or(compiled: Callable[..., Tensor] | None, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the compiled pass where there is one, which tells CUDA graphs that its last output is not needed."""
    if compiled is None:
        return forward

    def run(x: Tensor, *given: Any) -> Tensor:
        if x.is_cuda:
            torch.compiler.cudagraph_mark_step_begin()
        return compiled(x, *given)

    return run


def made_ready(model: Model, precision: str, compile: bool, batch_size: int) -> Model:
    """Return the model itself, its weights in a precision ("fp32" or "bf16").

    compile: whether its passes are compiled, for batches of ``batch_size`` images.
    """
    if precision != "fp32" or compile:
        model.prepare(dtype=PRECISIONS[precision], compile=compile, chunk_size=batch_size if compile else None)
    return model
