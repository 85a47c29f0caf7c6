"""TiTok: an image as a one-dimensional list of vectors, by transformers (Table 1).

Legacy models have a separate decoder of pixels, which is given softly mixed rows of a second codebook.
The others give pixels directly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ImageError
from .network import Levels, PeerNetwork, Shapes, State, Table, double, nearest_row, norm, residuals, run

HEAD_WIDTH = 64


class Block(nn.Module):
    """Self-attention and MLP, each normalised before and added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // HEAD_WIDTH, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class Transformer(nn.Module):
    """The part that encoder and decoder share: class token, positions of grid and latents, blocks between norms."""

    def __init__(self, width: int, depth: int, positions: int, tokens: int) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.empty(1, width))
        self.positional_embedding = nn.Parameter(torch.empty(positions, width))
        self.latent_token_positional_embedding = nn.Parameter(torch.empty(tokens, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.ModuleList(Block(width) for _ in range(depth))

    def blocks(self, grid: Tensor, latents: Tensor) -> Tensor:
        """Return the blocks' output B (1 + n + N) W, the class token first, of a grid B n W and latents B N W."""
        first = self.class_embedding.expand(len(grid), 1, -1)
        grid = torch.cat([first, grid], 1) + self.positional_embedding
        latents = latents + self.latent_token_positional_embedding
        return run(self.transformer, self.ln_pre(torch.cat([grid, latents], 1)))


class Encoder(Transformer):
    """The transformer from patches of an image to the latents of its tokens."""

    def __init__(self, width: int, depth: int, positions: int, tokens: int, patch: int, dimensions: int) -> None:
        super().__init__(width, depth, positions, tokens)
        self.patch_embed = nn.Conv2d(3, width, patch, stride=patch)
        self.conv_out = nn.Conv2d(width, dimensions, 1)

    def forward(self, image: Tensor, latent_tokens: Tensor, legacy: bool) -> Tensor:
        """Return the latents B C 1 N of images B 3 H W."""
        grid = self.patch_embed(image).flatten(2).transpose(1, 2)
        x = self.blocks(grid, latent_tokens.expand(len(image), -1, -1))
        latents = self.ln_post(x[:, -len(latent_tokens) :])
        b, n, width = latents.shape
        # Legacy models read the memory of (N, W) as (W, N); the published weights were trained that way.
        latents = latents.reshape(b, width, n, 1) if legacy else latents.transpose(1, 2).unsqueeze(-1)
        return self.conv_out(latents).reshape(b, -1, 1, n)


class Decoder(Transformer):
    """The transformer from codes to a grid of logits (legacy models) or of pixels."""

    def __init__(self, width: int, depth: int, positions: int, tokens: int, dimensions: int, head: list[int]) -> None:
        super().__init__(width, depth, positions, tokens)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.decoder_embed = nn.Linear(dimensions, width)
        self.ffn = nn.Sequential(nn.Conv2d(width, head[0], 1))
        if len(head) > 1:  # logits of the second codebook
            self.ffn.extend([nn.Tanh(), nn.Conv2d(head[0], head[1], 1)])
        else:
            self.conv_out = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        """Return logits B L g g (legacy models) or pixels B 3 H W of codes B C 1 N."""
        cells = len(self.positional_embedding) - 1
        side = round(cells**0.5)
        x = self.blocks(self.mask_token.expand(len(codes), cells, -1), self.decoder_embed(codes[:, :, 0].mT))
        x = self.ffn(self.ln_post(x[:, 1 : cells + 1]).mT.reshape(len(codes), -1, side, side))
        if len(self.ffn) > 1:
            return x
        patch = round((x.shape[1] / 3) ** 0.5)
        x = x.view(-1, patch, patch, 3, side, side).permute(0, 3, 4, 1, 5, 2)
        return self.conv_out(x.reshape(-1, 3, side * patch, side * patch))


class PixelDecoder(nn.Module):
    """The decoder of pixels of legacy models: rows of the second codebook B C g g to images B 3 H W.

    Levels are numbered by size: the last is the coarsest and runs first.
    """

    def __init__(self, channels: int, widths: list[int], count: int, middle: int, coarsest: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, coarsest, 3, padding=1)
        self.mid = residuals(coarsest, coarsest, middle, bias=False)
        self.up: Levels = nn.ModuleList()
        for i, (width, inwards) in enumerate(zip(widths, [*widths[1:], coarsest], strict=True)):
            level = nn.ModuleDict({"block": residuals(inwards, width, count, False, True)})
            if i > 0:
                level["upsample_conv"] = nn.Conv2d(width, width, 3, padding=1)
            self.up.append(level)
        self.norm_out, self.conv_out = norm(widths[0]), nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = run(self.mid, self.conv_in(x))
        for level in reversed(self.up):
            x = run(level["block"], x)
            x = level["upsample_conv"](double(x)) if "upsample_conv" in level else x
        return self.conv_out(F.silu(self.norm_out(x)))


class TiTok(PeerNetwork):
    """TiTok's tokenizers.

    Legacy models (S-128, B-64, L-32) normalise latents and rows of the codebook; the later ones do not.
    """

    unit_range = True

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        size, dimensions = shapes("quantize.embedding.weight")
        self.legacy = any(key.startswith("pixel_decoder.") for key in shapes.state)
        tokens, width = shapes("latent_tokens")
        self.latent_tokens = nn.Parameter(torch.empty(tokens, width))
        self.quantize = Table(size, dimensions)
        depth, positions = shapes.count("encoder.transformer"), shapes("encoder.positional_embedding")[0]
        patch = shapes("encoder.patch_embed.weight")[-1]
        self.encoder = Encoder(width, depth, positions, tokens, patch, dimensions)
        width = shapes("decoder.decoder_embed.weight")[0]
        depth, positions = shapes.count("decoder.transformer"), shapes("decoder.positional_embedding")[0]
        head = [shapes(f"decoder.ffn.{i}.weight")[0] for i in ((0, 2) if self.legacy else (0,))]
        self.decoder = Decoder(width, depth, positions, tokens, dimensions, head)
        if self.legacy:
            rows, channels = shapes("pixel_quantize.embedding.weight")
            self.pixel_quantize = Table(rows, channels)
            counts = [shapes.count(f"pixel_decoder.{part}") for part in ("up.0.block", "mid")]
            widths, coarsest = shapes.widths("pixel_decoder.up", "block"), shapes("pixel_decoder.conv_in.weight")[0]
            self.pixel_decoder = PixelDecoder(channels, widths, counts[0], counts[1], coarsest)
        self.factor = patch * round((shapes("encoder.positional_embedding")[0] - 1) ** 0.5)
        self.num_codes = size

    @property
    def codebook(self) -> Tensor:
        """Return the rows that latents are compared with, of unit length in legacy models."""
        table = self.quantize.embedding.weight
        return F.normalize(table, dim=1) if self.legacy else table

    def check_size(self, height: int, width: int) -> None:
        """Raise ImageError for another size than the one that positions were learned for."""
        if (height, width) != (self.factor, self.factor):
            raise ImageError(f"TiTok takes images of {self.factor} x {self.factor} pixels, not {height} x {width}")

    def latent(self, x: Tensor) -> Tensor:
        return self.encoder(x, self.latent_tokens, self.legacy)

    def indices(self, latent: Tensor) -> Tensor:
        return nearest_row(F.normalize(latent, dim=1) if self.legacy else latent, self.codebook)

    def codes(self, indices: Tensor) -> Tensor:
        return self.codebook[indices].movedim(-1, 1)

    def pixels(self, codes: Tensor) -> Tensor:
        x = self.decoder(codes)
        return self.pixel_decoder(self.soft_rows(x)) if self.legacy else x

    def soft_rows(self, logits: Tensor) -> Tensor:
        """Return the rows of the second codebook, weighted by the softmax of logits B L g g, as B C g g."""
        return torch.einsum("blhw,lc->bchw", logits.softmax(1), self.pixel_quantize.embedding.weight)


def titok(state: State, where: str) -> TiTok:
    """Return the network that a state dict describes, without its weights."""
    return TiTok(Shapes(state, where))
