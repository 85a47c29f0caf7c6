"""What an evaluation asks of a tokenizer: FlowMo has it, and so do other people's tokenizers (Table 1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..config import SamplerConfig
from ..quantize.tokens import Tokens


class MeasurableConfig(Protocol):
    """What an evaluation asks of the configuration of a model."""

    @property
    def image_size(self) -> int:
        """Return the side of its square images, in pixels."""
        ...

    @property
    def num_tokens(self) -> int: ...

    @property
    def num_groups(self) -> int: ...

    @property
    def bits_per_group(self) -> int: ...

    @property
    def sampler(self) -> SamplerConfig | None:
        """Return how it samples by default, None for a decoder that draws nothing."""
        ...


class Measurable(Protocol):
    """A tokenizer in the steps of ``FlowMo``, with the shapes that are said there."""

    @property
    def config(self) -> MeasurableConfig: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def has_tokens(self) -> bool: ...

    def fingerprint(self) -> int: ...

    def codes(self, images: Any) -> Tensor: ...

    def tokenize(self, images: Any) -> Tokens: ...

    def code_of(self, indices: Tensor) -> Tensor: ...

    def decode_noise(self, code: Tensor, noise: Tensor, sampler: Any) -> Tensor: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> dict[str, Any]: ...
