"""The encoder e_theta: image and initial latent to latent (Section 3.1, Eq. 1; B4-B6)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import FlowMoConfig
from .block import TwoStreamBlock
from .mup import Readout, scale_initialization
from .patches import patchify
from .rotary import rotary_table


class Encoder(nn.Module):
    """The network e_theta: patches of the image beside ``num_tokens`` latent tokens in ``depth`` two-stream blocks.

    It has no noise level.

    c_0 is zero in the paper, so latent tokens start as the bias of ``code_in`` and differ by rotation only (B4);
    ``initial_latent="learned"`` makes it a parameter N K.
    """

    initial_latent: Tensor

    def __init__(self, config: FlowMoConfig) -> None:
        super().__init__()
        c = config.encoder
        self.patch_size, self.head_dim = c.patch_size, c.head_dim
        self.num_tokens, self.latent_positions = config.num_tokens, config.latent_positions
        initial = torch.zeros(config.num_tokens, config.latent_dim)
        if config.initial_latent == "learned":
            self.initial_latent = nn.Parameter(initial)
            if not initial.is_meta:  # weights that are loaded need no draw, and there it would import a compiler
                nn.init.normal_(self.initial_latent)
        else:
            self.register_buffer("initial_latent", initial, persistent=False)
        self.image_in = nn.Linear(3 * c.patch_size**2, c.width)
        self.code_in = nn.Linear(config.latent_dim, c.width)
        self.blocks = nn.ModuleList(
            TwoStreamBlock(c.width, c.heads, c.mlp_ratio, "none", updates_image=i < c.depth - 1) for i in range(c.depth)
        )
        self.readout = Readout(c.width, config.latent_dim, c.width_multiplier)
        scale_initialization(self, c.width_multiplier)

    def forward(self, image: Tensor) -> Tensor:
        """Return the latents B N K of images B 3 H W in [-1, 1] (Eq. 1).

        The sides of the images are multiples of the patch size.
        """
        return self.forward_blocks(image, self.table(image))

    def table(self, image: Tensor) -> Tensor:
        """Return the rotary table of latent tokens and patches."""
        rows, columns = (side // self.patch_size for side in image.shape[-2:])
        return rotary_table(rows, columns, self.num_tokens, self.latent_positions, self.head_dim, image.device)

    def forward_blocks(self, image: Tensor, table: Tensor) -> Tensor:
        """Return the latents B N K of images B 3 H W, with a rotary table that is ready."""
        patches = self.image_in(patchify(image, self.patch_size).to(self.image_in.weight.dtype))
        code = self.code_in(self.initial_latent).expand(image.shape[0], -1, -1)
        for block in self.blocks:
            code, patches = block(code, patches, table, None, None)
        return self.readout(F.layer_norm(code, code.shape[-1:], eps=1e-6))
