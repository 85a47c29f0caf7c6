"""Stage 2: the class-conditional bidirectional transformer over tokens (Section 3.5, Appendix A.3; F1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arch.block import attention
from ..errors import ConfigError
from ..pretrained import Pretrained
from .config import GeneratorConfig

NO_CLASS = -1
"""The label that stands for none: dropped in training, or of the unconditional prediction in guidance."""


class Block(nn.Module):
    """Pre-norm self-attention and MLP. skip: the output of an earlier block is an input as well."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, skip: bool) -> None:
        super().__init__()
        self.heads = heads
        self.skip = nn.Linear(2 * width, width) if skip else None
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, mlp_ratio * width)
        self.mlp_out = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor, earlier: Tensor | None = None) -> Tensor:
        """Return the block's output B L width of x and, with a skip, the output ``earlier`` of its mirror image."""
        if self.skip is not None and earlier is not None:
            x = self.skip(torch.cat([x, earlier], dim=-1))
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # B heads L head_dim
        attended = attention(query, key, value, query.shape[-1] ** -0.5)
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x))))


class Generator(Pretrained, nn.Module):
    """A transformer that gives the logits of masked tokens from the other tokens and a class.

    It knows integers and nothing of images.
    classes: a name a class, or none; kept with the weights.
    Raises ConfigError where their number does not fit.
    """

    def __init__(self, config: GeneratorConfig, classes: Sequence[str] = ()) -> None:
        super().__init__()
        if classes and len(classes) != config.num_classes:
            raise ConfigError(f"{len(classes)} class names for a generator of {config.num_classes} classes")
        self.config, self.classes = config, list(classes)
        c = config
        half, middle = (c.depth // 2, 1) if c.long_skips else (0, 0)
        self.remembered = half  # blocks whose output a later one is given too
        self.token_embedding: nn.Embedding | nn.Linear
        places, values = c.sequence_length, c.vocabulary
        if c.place == "token":
            places, values = c.tokens.num_tokens, c.groups * c.vocabulary
            self.token_embedding = nn.Linear(c.tokens.bits_per_token, c.width)
        else:
            self.token_embedding = nn.Embedding(c.vocabulary + 1, c.width)  # the last is the mask
        self.class_embedding = nn.Embedding(c.num_classes + 1, c.width)  # the last is no class
        self.positions = nn.Parameter(torch.zeros(places + 1, c.width))
        self.blocks = nn.ModuleList(
            Block(c.width, c.heads, c.mlp_ratio, skip=c.long_skips and i >= half + middle)
            for i in range(c.depth + middle)
        )
        self.norm = nn.LayerNorm(c.width)
        self.readout = nn.Linear(c.width, values)
        self.apply(_initialize)
        nn.init.trunc_normal_(self.positions, std=0.02)

    @property
    def device(self) -> torch.device:
        """Return the device that the weights are on."""
        return self.positions.device

    def forward(self, tokens: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Return the logits B L V of the tokens.

        tokens: int64 B L, of any value where masked.
        labels: int64 (B,), ``NO_CLASS`` for none.
        mask: bool B L, True where a token is unknown.
        """
        of_class = self.class_embedding(torch.where(labels < 0, self.config.num_classes, labels))
        x = torch.cat([of_class[:, None], self._embedded(tokens, mask)], dim=1) + self.positions  # B 1+places width
        first_half: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x = block(x, first_half.pop() if block.skip is not None else None)
            if i < self.remembered:
                first_half.append(x)
        return self.readout(self.norm(x[:, 1:])).reshape(*tokens.shape, -1)

    def _embedded(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return what stands at each place of the sequence, B places width."""
        c = self.config
        if c.place == "integer":
            return self.token_embedding(torch.where(mask, c.vocabulary, tokens))
        bits = tokens[..., None] >> torch.arange(c.bits_per_group, device=tokens.device) & 1
        signs = torch.where(mask[..., None], 0, 2 * bits - 1).to(self.positions.dtype)  # B L bits_per_group
        return self.token_embedding(signs.reshape(len(tokens), c.tokens.num_tokens, -1))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
