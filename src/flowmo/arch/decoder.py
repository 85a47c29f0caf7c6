"""The decoder d_theta: noisy image, code and noise level to a velocity (Section 3.1, Eq. 3; B6-B8)."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import FlowMoConfig
from .block import Conditioning, TwoStreamBlock
from .modulation import AdaLN, Modulation, TimeEmbedding, modulated_norm
from .mup import Readout, scale_initialization
from .patches import patchify, unpatchify
from .rotary import rotary_table
from .transform import LinearDecoder


class Levels(NamedTuple):
    """What the decoder makes of noise levels. blocks: of each block, what conditions its code and its image stream."""

    blocks: list[tuple[Conditioning, Conditioning]]
    readout: Modulation


class Decoder(nn.Module):
    """Patches of x_t beside the code tokens, ``depth`` two-stream blocks modulated by t.

    The code carries one more channel, the mask: 1 where a code is given, and the null condition of guidance is
    all zeros, mask included (B7).
    """

    def __init__(self, config: FlowMoConfig) -> None:
        super().__init__()
        c = config.decoder
        self.patch_size, self.head_dim = c.patch_size, c.head_dim
        self.num_tokens, self.latent_positions = config.num_tokens, config.latent_positions
        self.latent_dim = config.latent_dim
        self.time_embedding = TimeEmbedding(c.width)
        seen = 2 if config.transform else 1  # x_t, and beside it the linear image
        self.image_in = nn.Linear(seen * 3 * c.patch_size**2, c.width)
        self.code_in = nn.Linear(config.latent_dim + 1, c.width)
        shared = config.modulation == "shared"
        self.code_modulation = AdaLN(c.width) if shared else None
        self.image_modulation = AdaLN(c.width) if shared else None
        self.blocks = nn.ModuleList(
            TwoStreamBlock(c.width, c.heads, c.mlp_ratio, config.modulation, updates_code=i < c.depth - 1)
            for i in range(c.depth)
        )
        self.readout_modulation = AdaLN(c.width, gated=False)
        self.readout = Readout(c.width, 3 * c.patch_size**2, c.width_multiplier)
        scale_initialization(self, c.width_multiplier)
        self.linear = None
        if config.transform is not None:
            self.linear = LinearDecoder(config)
            self.start_linear()

    @torch.no_grad()
    def start_linear(self) -> None:
        """Begin as the linear map alone: a readout of zero, behind gates that are open so that it learns at once."""
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)
        for module in self.modules():
            if isinstance(module, AdaLN) and module.chunks == 6:
                for gate in module.linear.bias.chunk(6)[2::3]:
                    gate.fill_(0.3)

    def forward(self, x_t: Tensor, masked_code: Tensor, t: Tensor) -> Tensor:
        """x_t: B 3 H W; masked_code: B N K+1; t: (B,) -> B 3 H W, a velocity or a clean image by configuration."""
        linear = self.linear_image(masked_code, x_t)
        return self.paint(x_t, self.code_in(masked_code), self.levels(t), self.table(x_t), linear)

    def linear_image(self, masked_code: Tensor, x_t: Tensor) -> Tensor | None:
        """What the linear map makes of a code, B 3 H W; None in a model without a transform."""
        if self.linear is None:
            return None
        return self.linear(masked_code[..., :-1], (x_t.shape[-2], x_t.shape[-1]))

    def table(self, x_t: Tensor) -> Tensor:
        """Rotary table of code tokens and patches."""
        rows, columns = (side // self.patch_size for side in x_t.shape[-2:])
        num_tokens = self.num_tokens
        if self.linear is not None:
            num_tokens = rows * columns * self.patch_size**2 // self.linear.patch_size**2
        return rotary_table(rows, columns, num_tokens, self.latent_positions, self.head_dim, x_t.device)

    def levels(self, t: Tensor) -> Levels:
        """Of noise levels (B,), one an image; each block makes its own modulations of it."""
        conditioning = self.time_embedding(t)
        code = image = conditioning
        if self.code_modulation is not None and self.image_modulation is not None:
            code = _stacked(self.code_modulation, conditioning)
            image = _stacked(self.image_modulation, conditioning)
        return Levels([(code, image)] * len(self.blocks), self.readout_modulation(conditioning)[0])

    def each_level(self, t: Tensor) -> list[Levels]:
        """Of noise levels (n,) known beforehand: n conditionings with all modulations made, each for a whole batch."""
        blocks, readout = self.levels(t)
        made: list[tuple[list[Modulation], list[Modulation]]] = []
        for block, (code, image) in zip(self.blocks, blocks, strict=True):
            assert isinstance(block, TwoStreamBlock)
            streams = (block.code_stream.modulations(code), block.image_stream.modulations(image))
            made.append(cast(tuple[list[Modulation], list[Modulation]], streams))
        return [
            Levels([([m.at(k) for m in code], [m.at(k) for m in image]) for code, image in made], readout.at(k))
            for k in range(len(t))
        ]

    def paint(self, x_t: Tensor, code: Tensor, levels: Levels, table: Tensor, linear: Tensor | None = None) -> Tensor:
        """The pass itself. code: B N width, what ``code_in`` makes of a masked code. linear: see :meth:`linear_image`.
        Returns B 3 H W."""
        # The state stays in the sampler's precision, whatever that of the weights.
        seen = x_t if linear is None else torch.cat([x_t, linear.to(x_t.dtype)], dim=1)
        image = self.image_in(patchify(seen, self.patch_size).to(self.image_in.weight.dtype))
        for block, conditioning in zip(self.blocks, levels.blocks, strict=True):
            code, image = block(code, image, table, *conditioning)
        image = modulated_norm(image, levels.readout)
        # A second norm after the modulation, to match the released weights (B6).
        image = self.readout(F.layer_norm(image, image.shape[-1:], eps=1e-6))
        image = unpatchify(image, self.patch_size, *x_t.shape[-2:])
        return image if linear is None else linear + image


def masked_code(code: Tensor, keep: Tensor | None = None) -> Tensor:
    """Append the mask channel of ones; images where ``keep`` (B,) is False get the all-zero null condition (B7)."""
    code = torch.cat([code, torch.ones_like(code[..., :1])], dim=-1)
    return code if keep is None else code * keep.to(code.dtype)[:, None, None]


def null_code(batch: int, config: FlowMoConfig, like: Tensor) -> Tensor:
    """The null condition, B N K+1 of zeros (B7), of the dtype and on the device of ``like``."""
    return like.new_zeros(batch, config.num_tokens, config.latent_dim + 1)


def _stacked(modulation: AdaLN, conditioning: Tensor) -> Tensor:
    return modulation.linear(F.silu(conditioning)).unflatten(-1, (modulation.chunks, -1))  # B 6 width
