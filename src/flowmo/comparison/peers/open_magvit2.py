"""Open-MAGVIT2: convolutions without attention, a look-up-free code, norms adapted to it at every level (Table 1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .network import Levels, PeerNetwork, Shapes, State, bits_to_indices, indices_to_bits, norm, residuals, run


class DepthToSpace(nn.Module):
    """A convolution to four times the channels, then four channels to a square of 2 x 2 positions.

    The place in the square is the slow part of a channel's number, unlike in a pixel shuffle.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, 4 * width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        b, c, h, w = x.shape
        return x.view(b, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, c // 4, 2 * h, 2 * w)


class AdaptiveNorm(nn.Module):
    """Group normalisation, scaled and shifted by the spread and the mean of the code over its positions."""

    def __init__(self, width: int, code_width: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Linear(code_width, width), nn.Linear(code_width, width)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        spread = (code.flatten(2).var(2) + 1e-6).sqrt()  # of the sample, hence divided by n - 1
        scale, shift = self.gamma(spread), self.beta(code.flatten(2).mean(2))
        return F.group_norm(x, 32, eps=1e-6) * scale[..., None, None] + shift[..., None, None]


class Encoder(nn.Module):
    """Images B 3 H W in [-1, 1], brought by levels of residual blocks to a channel for each bit, B K h w."""

    def __init__(self, first: int, widths: list[int], count: int, middle: int, bits: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.down: Levels = nn.ModuleList()
        for i, (inwards, width) in enumerate(zip([first, *widths], widths, strict=False)):
            level = nn.ModuleDict({"block": residuals(inwards, width, count, bias=False)})
            if i < len(widths) - 1:
                level["downsample"] = nn.Conv2d(width, width, 3, stride=2, padding=1)
            self.down.append(level)
        self.mid_block = residuals(widths[-1], widths[-1], middle, bias=False)
        self.norm_out, self.conv_out = norm(widths[-1]), nn.Conv2d(widths[-1], bits, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = run(level["block"], x)
            x = level["downsample"](x) if "downsample" in level else x
        return self.conv_out(F.silu(self.norm_out(run(self.mid_block, x))))


class Decoder(nn.Module):
    """The encoder backwards, with norms adapted to the code: bits B K h w to images B 3 H W.

    Levels are numbered by size: the last is the coarsest and runs first.
    """

    def __init__(self, bits: int, widths: list[int], count: int, middle: int, coarsest: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(bits, coarsest, 3, padding=1)
        self.mid_block = residuals(coarsest, coarsest, middle, bias=False)
        self.up: Levels = nn.ModuleList()
        self.adaptive = nn.ModuleList()
        for i, (width, inwards) in enumerate(zip(widths, [*widths[1:], coarsest], strict=True)):
            level = nn.ModuleDict({"block": residuals(inwards, width, count, bias=False)})
            if i > 0:
                level["upsample"] = DepthToSpace(width)
            self.up.append(level)
            self.adaptive.append(AdaptiveNorm(inwards, bits))
        self.norm_out, self.conv_out = norm(widths[0]), nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, code: Tensor) -> Tensor:
        x = run(self.mid_block, self.conv_in(code))
        for level, adapt in zip(reversed(self.up), reversed(self.adaptive), strict=True):
            x = run(level["block"], adapt(x, code))
            x = level["upsample"](x) if "upsample" in level else x
        return self.conv_out(F.silu(self.norm_out(x)))


class OpenMagvit2(PeerNetwork):
    """Open-MAGVIT2's tokenizer: the sign of each of the encoder's channels is a bit, and there is no table."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        bits = shapes("encoder.conv_out.weight")[0]
        self.num_codes = 2**bits
        widths = shapes.widths("encoder.down", "block")
        counts = [shapes.count(f"encoder.{part}") for part in ("down.0.block", "mid_block")]
        self.encoder = Encoder(shapes("encoder.conv_in.weight")[0], widths, counts[0], counts[1], bits)
        ups = shapes.widths("decoder.up", "block")
        counts = [shapes.count(f"decoder.{part}") for part in ("up.0.block", "mid_block")]
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


def open_magvit2(state: State, where: str) -> OpenMagvit2:
    """Return the network that a state dict describes, without its weights."""
    return OpenMagvit2(Shapes(state, where))


def averaged(state: State) -> dict[str, Tensor]:
    """Return the network's own tensors of a published state dict, those of the EMA where it has one.

    The EMA's are stored without the dots of the names. Losses and their networks are left out.
    """
    prefix = "model_ema."
    own = {key: value for key, value in state.items() if key.split(".")[0] in ("encoder", "decoder", "quantize")}
    found = {key: state[prefix + key.replace(".", "")] for key in own if prefix + key.replace(".", "") in state}
    return own | found
