"""LlamaGen's VQ tokenizer: convolutions, attention at the coarsest level, 16,384 unit vectors (Table 1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .network import (
    Attention,
    Downsample,
    PeerNetwork,
    Residual,
    Shapes,
    State,
    Table,
    Upsample,
    nearest_row,
    norm,
    residuals,
)


class Level(nn.Module):
    """Residual blocks, each with attention where ``attention``, then a change of size where there is one."""

    def __init__(self, width_in: int, width: int, count: int, attention: bool) -> None:
        super().__init__()
        self.res = residuals(width_in, width, count)
        self.attn = nn.ModuleList(Attention(width) for _ in range(count if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.res):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        for resize in ("downsample", "upsample"):
            x = getattr(self, resize)(x) if hasattr(self, resize) else x
        return x


class Half(nn.Module):
    """The encoder, or the decoder, whose middle comes first.

    widths: of the levels in the order of execution.
    first: the width before them.
    """

    def __init__(
        self, channels: int, first: int, widths: list[int], count: int, channels_out: int, decoder: bool
    ) -> None:
        super().__init__()
        self.decoder, last = decoder, len(widths) - 1
        middle = first if decoder else widths[-1]
        self.conv_in = nn.Conv2d(channels, first, 3, padding=1)
        self.conv_blocks = nn.ModuleList()
        for i, (inwards, width) in enumerate(zip([first, *widths], widths, strict=False)):
            level = Level(inwards, width, count, attention=i == (0 if decoder else last))
            if i < last:
                level.add_module(*(("upsample", Upsample(width)) if decoder else ("downsample", Downsample(width))))
            self.conv_blocks.append(level)
        self.mid = nn.ModuleList([Residual(middle, middle), Attention(middle), Residual(middle, middle)])
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        blocks = [*self.mid, *self.conv_blocks] if self.decoder else [*self.conv_blocks, *self.mid]
        for block in blocks:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class LlamaGen(PeerNetwork):
    """LlamaGen's VQ-16 and VQ-8, and any other widths: latents and codebook are unit vectors at every call."""

    ignored = (r"quantize\.codebook_used",)

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        parts = []
        for side, inwards in (("encoder", 3), ("decoder", shapes("encoder.conv_out.weight")[0])):
            widths = shapes.widths(f"{side}.conv_blocks", "res")
            first = shapes(f"{side}.conv_in.weight")[0]
            count = shapes.count(f"{side}.conv_blocks.0.res")
            parts.append(Half(inwards, first, widths, count, shapes(f"{side}.conv_out.weight")[0], side == "decoder"))
        self.encoder, self.decoder = parts
        size, dimensions = shapes("quantize.embedding.weight")
        channels = shapes("encoder.conv_out.weight")[0]
        self.quantize = Table(size, dimensions)
        self.quant_conv = nn.Conv2d(channels, dimensions, 1)
        self.post_quant_conv = nn.Conv2d(dimensions, channels, 1)
        self.factor = 2 ** (len(self.encoder.conv_blocks) - 1)
        self.num_codes = size

    @property
    def codebook(self) -> Tensor:
        """Return the codebook with rows of unit length."""
        return F.normalize(self.quantize.embedding.weight, dim=1)

    def latent(self, x: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(x))

    def indices(self, latent: Tensor) -> Tensor:
        return nearest_row(F.normalize(latent, dim=1), self.codebook)

    def codes(self, indices: Tensor) -> Tensor:
        return self.codebook[indices].movedim(-1, 1)

    def pixels(self, codes: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(codes))


def llamagen(state: State, where: str) -> LlamaGen:
    """Return the network that a state dict describes, without its weights."""
    return LlamaGen(Shapes(state, where))
