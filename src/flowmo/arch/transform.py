"""The transform start, not in the paper (O12): tokens begin as the best linear code of their patch.

A token belongs to one patch of the image. Its latent is arithmetic: principal components of the patch, each quantized
by successive approximation. Channel j of the latent is what the bits before it have left of its component, so its sign,
which is all that LFQ keeps, is the next bit. Bits are in order of importance: the first k are a code of k bits.

The decoder begins as a linear map of the bits of the 3 x 3 patches around, one map for each of a few rates, in between
interpolated. ``training/fit_transform.py`` computes all of it in closed form.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import FlowMoConfig, TransformConfig
from .block import TwoStreamBlock
from .mup import Readout
from .patches import patchify, unpatchify
from .rotary import rotary_table


class TransformEncoder(nn.Module):
    """The encoder e_theta as a transform of patches: from images B 3 H W to latents B N K.

    There is one token a patch in reading order, N = (H / p) (W / p) in all.

    With ``transform.learned_encoder`` a two-stream transformer adds to the components before they are quantized; at the
    start it adds nothing. Without it a token depends on the pixels of its own patch alone.
    """

    def __init__(self, config: FlowMoConfig) -> None:
        super().__init__()
        t = _transform(config)
        self.patch_size, self.allocation = t.patch_size, t.allocation
        channels = 3 * t.patch_size**2
        self.mean = _constant(channels)
        self.basis = _constant(channels, t.num_components)
        self.step = _constant(len(t.allocation))
        self.blocks = nn.ModuleList()
        c = config.encoder
        self.head_dim = c.head_dim
        if t.learned_encoder:
            self.image_in = nn.Linear(channels, c.width)
            self.code_in = nn.Linear(t.num_components, c.width)
            self.blocks = nn.ModuleList(
                TwoStreamBlock(c.width, c.heads, c.mlp_ratio, "none", updates_image=i < c.depth - 1)
                for i in range(c.depth)
            )
            self.readout = Readout(c.width, t.num_components, c.width_multiplier)
            nn.init.zeros_(self.readout.weight)
            nn.init.zeros_(self.readout.bias)

    def forward(self, image: Tensor) -> Tensor:
        return self.forward_blocks(image, self.table(image))

    def table(self, image: Tensor) -> Tensor:
        rows, columns = (side // self.patch_size for side in image.shape[-2:])
        return rotary_table(rows, columns, rows * columns, "patches", self.head_dim, image.device)

    def components(self, image: Tensor) -> Tensor:
        """Return the principal components of every patch: B N C, float32."""
        return (patchify(image.float(), self.patch_size) - self.mean.float()) @ self.basis.float()

    def forward_blocks(self, image: Tensor, table: Tensor) -> Tensor:
        with torch.autocast("cpu" if image.is_meta else image.device.type, enabled=False):
            components = self.components(image)
        if self.blocks:
            patches = self.image_in(patchify(image, self.patch_size).to(self.image_in.weight.dtype))
            code = self.code_in(components.to(self.image_in.weight.dtype))
            for block in self.blocks:
                code, patches = block(code, patches, table, None, None)
            components = components + self.readout(F.layer_norm(code, code.shape[-1:], eps=1e-6)).float()
        return self.approximate(components)

    def approximate(self, components: Tensor) -> Tensor:
        """Return the latents B N K of components B N C by successive approximation.

        The gradient of a channel is its component's.
        """
        left = list(components.unbind(-1))
        latent = []
        for component, step in zip(self.allocation, self.step.float(), strict=True):
            rest = left[component]
            latent.append(rest)
            left[component] = rest - torch.where(rest > 0, step, -step).detach()
        return torch.stack(latent, dim=-1)


class LinearDecoder(nn.Module):
    """The linear map from the bits of the 3 x 3 patches around to a patch, for any number of bits a token.

    maps: a convolution that holds, for each of ``transform.rates``, the best map of that many bits: A C K+1 3 3.
    basis: brings C components back to a patch.
    """

    def __init__(self, config: FlowMoConfig) -> None:
        super().__init__()
        t = _transform(config)
        self.rates, self.channels, self.patch_size = t.rates, t.linear_channels, t.patch_size
        bits = len(t.allocation)
        self.maps = nn.Conv2d(bits, len(t.rates) * t.linear_channels, 3, padding=1)
        self.basis = nn.Linear(t.linear_channels, 3 * t.patch_size**2)

    def forward(self, code: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the images B 3 H W, of that size, of codes B N K in {-1, 0, 1}; 0 is a bit that is not kept."""
        rows, columns = (side // self.patch_size for side in size)
        weight = self.maps.weight
        bits = code.to(weight.dtype).transpose(1, 2).unflatten(2, (rows, columns))
        made = self.maps(bits).flatten(2).unflatten(1, (len(self.rates), self.channels))  # B A C N
        mixed = torch.einsum("bacn,ba->bnc", made, self.mixture(code).to(made.dtype))
        return unpatchify(self.basis(mixed), self.patch_size, *size)

    def mixture(self, code: Tensor) -> Tensor:
        """Return the weight of each map for each image, B A: linear between the two rates around its kept bits."""
        kept = (code != 0).any(dim=1).sum(dim=1).float()  # B
        rates = torch.tensor(self.rates, dtype=torch.float32, device=code.device)
        kept = kept.clamp(float(self.rates[0]), float(self.rates[-1]))
        upper = torch.searchsorted(rates, kept).clamp(1, len(self.rates) - 1) if len(self.rates) > 1 else None
        if upper is None:
            return torch.ones_like(kept)[:, None]
        share = (kept - rates[upper - 1]) / (rates[upper] - rates[upper - 1])
        weights = torch.zeros(len(kept), len(self.rates), device=code.device)
        weights.scatter_(1, upper[:, None], share[:, None])
        return weights.scatter_(1, upper[:, None] - 1, 1 - share[:, None])


def _transform(config: FlowMoConfig) -> TransformConfig:
    assert config.transform is not None
    return config.transform


def _constant(*shape: int) -> nn.Parameter:
    """Fitted, then stored and averaged with the weights, but never trained."""
    return nn.Parameter(torch.zeros(*shape), requires_grad=False)
