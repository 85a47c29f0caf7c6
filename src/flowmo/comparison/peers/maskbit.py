"""MaskBit's tokenizer: convolutions without attention and a look-up-free code (Table 1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .network import (
    Levels,
    PeerNetwork,
    Shapes,
    State,
    bits_to_indices,
    double,
    indices_to_bits,
    norm,
    pad_right_bottom,
    residuals,
    run,
)


class Middle(nn.Module):
    """Residual blocks at the coarsest level."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.res_blocks = residuals(width, width, count, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return run(self.res_blocks, x)


class Encoder(nn.Module):
    """Images B 3 H W in [0, 1], brought by levels of residual blocks to a channel for each bit, B K h w."""

    def __init__(self, first: int, widths: list[int], count: int, middle: int, bits: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.down: Levels = nn.ModuleList()
        for i, (inwards, width) in enumerate(zip([first, *widths], widths, strict=False)):
            level = nn.ModuleDict({"res_blocks": residuals(inwards, width, count, False, True)})
            if i < len(widths) - 1:
                level["down_conv"] = nn.Conv2d(width, width, 3, stride=2)
            self.down.append(level)
        self.mid = Middle(widths[-1], middle)
        self.norm_out, self.conv_out = norm(widths[-1]), nn.Conv2d(widths[-1], bits, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = run(level["res_blocks"], x)
            x = level["down_conv"](pad_right_bottom(x)) if "down_conv" in level else x
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """The encoder backwards: bits B K h w to images B 3 H W.

    Levels stand in the order of execution: the first is the coarsest.
    """

    def __init__(self, bits: int, widths: list[int], count: int, middle: int, coarsest: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(bits, coarsest, 3, padding=1)
        self.mid = Middle(coarsest, middle)
        self.up: Levels = nn.ModuleList()
        for i, (inwards, width) in enumerate(zip([coarsest, *widths], widths, strict=False)):
            level = nn.ModuleDict({"res_blocks": residuals(inwards, width, count, False, True)})
            if i < len(widths) - 1:
                level["upsample_conv"] = nn.Conv2d(width, width, 3, padding=1)
            self.up.append(level)
        self.norm_out, self.conv_out = norm(widths[-1]), nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in self.up:
            x = run(level["res_blocks"], x)
            x = level["upsample_conv"](double(x)) if "upsample_conv" in level else x
        return self.conv_out(F.silu(self.norm_out(x)))


class MaskBit(PeerNetwork):
    """MaskBit's tokenizer: the sign of each of the encoder's channels is a bit.

    The table that files bring is never read.
    """

    unit_range = True
    ignored = (r"quantize\.(codebook|bits_to_indices)",)

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        bits = shapes("encoder.conv_out.weight")[0]
        self.num_codes = 2**bits
        widths, ups = shapes.widths("encoder.down", "res_blocks"), shapes.widths("decoder.up", "res_blocks")
        counts = [shapes.count(f"{part}.res_blocks") for part in ("encoder.down.0", "encoder.mid")]
        self.encoder = Encoder(shapes("encoder.conv_in.weight")[0], widths, counts[0], counts[1], bits)
        counts = [shapes.count(f"{part}.res_blocks") for part in ("decoder.up.0", "decoder.mid")]
        self.decoder = Decoder(bits, ups, counts[0], counts[1], shapes("decoder.conv_in.weight")[0])
        self.factor = 2 ** (len(widths) - 1)

    def latent(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def indices(self, latent: Tensor) -> Tensor:
        return bits_to_indices(latent)

    def codes(self, indices: Tensor) -> Tensor:
        return indices_to_bits(indices, self.bits_per_token)

    def pixels(self, codes: Tensor) -> Tensor:
        return self.decoder(codes)


def maskbit(state: State, where: str) -> MaskBit:
    """Return the network that a state dict describes, without its weights."""
    return MaskBit(Shapes(state, where))
