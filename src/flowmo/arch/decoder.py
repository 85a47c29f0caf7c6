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


class NoiseConditioning(NamedTuple):
    """What the decoder makes of noise levels."""

    blocks: list[tuple[Conditioning, Conditioning]]  # what conditions the code and the image stream of each block
    readout: Modulation  # of the last layer


class Context(NamedTuple):
    """What the decoder makes of a condition, once for all noise levels."""

    code: Tensor  # input of the code stream, B N width
    table: Tensor  # the rotary table of code tokens and patches
    linear: Tensor | None = None  # the linear image B 3 H W of a model with a transform, None in others


class Decoder(nn.Module):
    """The network d_theta: patches of x_t beside the code tokens in ``depth`` two-stream blocks, modulated by t.

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
        """Set the weights so that the decoder begins as the linear map alone.

        The readout is zero, behind gates that are open so that it learns at once. The channels of x_t and of the linear
        image lie side by side in a patch; at first the blocks see only those of the linear image, since x_t is noise at
        t = 1.
        """
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)
        self.image_in.weight.unflatten(1, (-1, 6))[..., :3].zero_()
        for module in self.modules():
            if isinstance(module, AdaLN) and module.chunks == 6:
                for gate in module.linear.bias.chunk(6)[2::3]:
                    gate.fill_(0.3)

    def forward(self, x_t: Tensor, channels: Tensor, t: Tensor) -> Tensor:
        """Return the output of the network, B 3 H W: a velocity or a clean image, by configuration.

        x_t: B 3 H W. channels: B N K+1, see ``Condition.channels``. t: (B,).
        """
        return self.forward_blocks(x_t, self.context(channels, x_t), self.conditioning(t))

    def context(self, channels: Tensor, x_t: Tensor) -> Context:
        """Return what a condition gives for images of the size of ``x_t``, the same at every noise level."""
        channels = channels.to(self.code_in.weight.dtype)
        return Context(self.code_in(channels), self.table(x_t), self.linear_image(channels, x_t))

    def linear_image(self, channels: Tensor, x_t: Tensor) -> Tensor | None:
        """Return the image B 3 H W that the linear map makes of a code; None in a model without a transform."""
        if self.linear is None:
            return None
        return self.linear(channels[..., :-1], (x_t.shape[-2], x_t.shape[-1]))

    def table(self, x_t: Tensor) -> Tensor:
        """Return the rotary table of code tokens and patches."""
        rows, columns = (side // self.patch_size for side in x_t.shape[-2:])
        num_tokens = self.num_tokens
        if self.linear is not None:
            num_tokens = rows * columns * self.patch_size**2 // self.linear.patch_size**2
        return rotary_table(rows, columns, num_tokens, self.latent_positions, self.head_dim, x_t.device)

    def conditioning(self, t: Tensor) -> NoiseConditioning:
        """Return the conditioning of noise levels (B,), one an image; each block makes its modulations of it."""
        conditioning = self.time_embedding(t)
        code = image = conditioning
        if self.code_modulation is not None and self.image_modulation is not None:
            code = _stacked(self.code_modulation, conditioning)
            image = _stacked(self.image_modulation, conditioning)
        return NoiseConditioning([(code, image)] * len(self.blocks), self.readout_modulation(conditioning)[0])

    def conditionings(self, t: Tensor) -> list[NoiseConditioning]:
        """Return the n conditionings of noise levels (n,) that are known beforehand.

        All modulations are made in them, and each is for a whole batch.
        """
        blocks, readout = self.conditioning(t)
        made: list[tuple[list[Modulation], list[Modulation]]] = []
        for block, (code, image) in zip(self.blocks, blocks, strict=True):
            assert isinstance(block, TwoStreamBlock)
            streams = (block.code_stream.modulations(code), block.image_stream.modulations(image))
            made.append(cast(tuple[list[Modulation], list[Modulation]], streams))
        return [
            NoiseConditioning(
                [([m.at(k) for m in code], [m.at(k) for m in image]) for code, image in made], readout.at(k)
            )
            for k in range(len(t))
        ]

    def forward_blocks(self, x_t: Tensor, context: Context, conditioning: NoiseConditioning) -> Tensor:
        """Return the output of the network, B 3 H W, for x_t B 3 H W; ``context`` and ``conditioning`` are ready."""
        code, table, linear = context
        # The state stays in the sampler's precision, whatever that of the weights.
        seen = x_t if linear is None else torch.cat([x_t, linear.to(x_t.dtype)], dim=1)
        image = self.image_in(patchify(seen, self.patch_size).to(self.image_in.weight.dtype))
        for block, given in zip(self.blocks, conditioning.blocks, strict=True):
            code, image = block(code, image, table, *given)
        image = modulated_norm(image, conditioning.readout)
        # A second norm after the modulation, to match the released weights (B6).
        image = self.readout(F.layer_norm(image, image.shape[-1:], eps=1e-6))
        image = unpatchify(image, self.patch_size, *x_t.shape[-2:])
        return image if linear is None else linear + image


def _stacked(modulation: AdaLN, conditioning: Tensor) -> Tensor:
    return modulation.linear(F.silu(conditioning)).unflatten(-1, (modulation.chunks, -1))  # B 6 width
