"""The transform start, not in the paper (O12): tokens begin as the best closed-form code of their patch.

A token belongs to one patch of the image, which is described by its principal components. The first bits of a token
name a class of patches, such as smooth ones, or edges of some direction. Each class has a mean, and for each further
bit a vector that the bit adds or takes away: the class's own principal components by successive approximation. The
latent of such a bit is what the bits before it have left, along its vector; its sign, which is all that LFQ keeps, is
the bit. Bits are in order of importance: the first k are a code of k bits.

The decoder begins as what the bits say, then a linear map of the 3 x 3 patches around, one for each of a few rates, in
between interpolated. ``fit_transform.py`` computes all of it in closed form.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import MOST_BITS, FlowMoConfig, TransformConfig
from .block import TwoStreamBlock
from .mup import Readout
from .patches import patchify, unpatchify
from .rotary import rotary_table

_TOKENS = 512  # that are coded at a time by all classes


class Successive(NamedTuple):
    """What successive approximation makes of components, by each of several classes."""

    latent: Tensor  # S classes J: what is left along the vector of each bit; its sign is the bit
    error: Tensor  # S classes J: the squared error after each bit


def successive(components: Tensor, means: Tensor, vectors: Tensor) -> Successive:
    """Return the approximation of components S M by every class: means classes M, vectors classes J M.

    The vectors of a class are orthogonal to each other, or parallel, of which there are at most ``MOST_BITS``.
    """
    length = vectors.norm(dim=-1).clamp_min(1e-12)  # classes J
    along = vectors / length[..., None]
    left = torch.einsum("sm,cjm->scj", components, along) - (means[:, None] * along).sum(-1)
    before, number = _earlier(along)
    source, step = before.expand(left.shape), length.gather(1, before)
    for n in range(1, MOST_BITS):
        rest = left.gather(2, source)
        left = torch.where(number == n, rest - torch.where(rest > 0, step, -step), left)
    error = (components[:, None] - means).square().sum(-1, keepdim=True)
    return Successive(left, error + (length.square() - 2 * left.abs() * length).cumsum(-1))


def _earlier(along: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for each bit, the last one before it along the same vector, and how many there are: classes J each.

    along: vectors of length 1, classes J M.
    """
    places = torch.arange(along.shape[1], device=along.device)
    parallel = (torch.einsum("cim,cjm->cij", along, along) > 0.5) & (places[:, None] < places)  # i is before j
    return (parallel * places[:, None]).amax(1), parallel.sum(1)


def nearest_class(error: Tensor) -> Tensor:
    """Return the class (S,) with the smallest product of the squared errors after a third, two thirds, and all bits.

    error: S classes J, see :class:`Successive`. The choice is the same at every rate, so that a code can be cut.
    """
    count = error.shape[-1]
    places = [max(0, round(count * share) - 1) for share in (1 / 3, 2 / 3, 1)]
    return error[..., places].clamp_min(1e-6).log().sum(-1).argmin(-1)


def class_signs(class_bits: int) -> Tensor:
    """Return the bits of each class's number, the most important first: classes class_bits in {-1, 1}."""
    return torch.tensor([*itertools.product((-1.0, 1.0), repeat=class_bits)]).reshape(2**class_bits, class_bits)


class TransformEncoder(nn.Module):
    """The encoder e_theta as a transform of patches: from images B 3 H W to latents B N K.

    There is one token a patch in reading order, N = (H / p) (W / p) in all.

    With ``transform.learned_encoder`` a two-stream transformer adds to the components before they are quantized; at the
    start it adds nothing. Without it a token depends on the pixels of its own patch alone.
    """

    def __init__(self, config: FlowMoConfig) -> None:
        super().__init__()
        t = _transform(config)
        self.patch_size, self.class_bits = t.patch_size, t.class_bits
        channels, bits = 3 * t.patch_size**2, config.bits_per_token - t.class_bits
        self.mean = _constant(channels)
        self.basis = _constant(channels, t.num_components)
        self.class_means = _constant(2**t.class_bits, t.num_components)
        self.class_vectors = _constant(2**t.class_bits, bits, t.num_components)
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
        """Return the principal components of every patch: B N M, float32."""
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
        with torch.autocast("cpu" if image.is_meta else image.device.type, enabled=False):
            return self.approximate(components)

    def approximate(self, components: Tensor) -> Tensor:
        """Return the latents B N K of components B N M: the bits of the class, then its successive approximation.

        The gradient of a latent is that of the components along its vector; the bits of the class have none.
        """
        means, vectors = self.class_means.float(), self.class_vectors.float()
        signs = class_signs(self.class_bits).to(components.device)
        latents = []
        for part in components.flatten(0, 1).split(_TOKENS):
            with torch.no_grad():
                every = successive(part, means, vectors)
                chosen = nearest_class(every.error)
                latent = every.latent[torch.arange(len(part), device=part.device), chosen]
            if part.requires_grad:
                along = F.normalize(vectors[chosen], dim=-1)
                through = torch.einsum("sm,sjm->sj", part, along)
                latent = latent + (through - through.detach())
            latents.append(torch.cat([signs[chosen], latent], dim=-1))
        return torch.cat(latents).unflatten(0, components.shape[:2])


class LinearDecoder(nn.Module):
    """What the bits say of each patch, then the linear map of the 3 x 3 patches around, for any number of bits a token.

    means, vectors: those of the classes, as the encoder has them; these are trained. factors: by how much each vector
    counts at each of ``transform.rates``, of R rates: R classes J. maps: a convolution that holds the best map of the
    components at each rate. basis: brings components back to a patch.
    """

    def __init__(self, config: FlowMoConfig) -> None:
        super().__init__()
        t = _transform(config)
        self.rates, self.channels, self.patch_size = t.rates, t.num_components, t.patch_size
        self.class_bits = t.class_bits
        classes, bits = 2**t.class_bits, config.bits_per_token - t.class_bits
        self.class_means = nn.Parameter(torch.zeros(classes, self.channels))
        self.class_vectors = nn.Parameter(torch.zeros(classes, bits, self.channels))
        self.factors = nn.Parameter(torch.ones(len(t.rates), classes, bits))
        self.maps = nn.Conv2d(self.channels, len(t.rates) * self.channels, 3, padding=1)
        self.basis = nn.Linear(self.channels, 3 * t.patch_size**2)

    def forward(self, code: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the images B 3 H W, of that size, of codes B N K in {-1, 0, 1}; 0 is a bit that is not kept."""
        code = code.to(self.maps.weight.dtype)
        mixture = self.mixture(code).to(code.dtype)
        rows, columns = (side // self.patch_size for side in size)
        patches = self.patches(code, mixture).transpose(1, 2).unflatten(2, (rows, columns))
        made = self.maps(patches).flatten(2).unflatten(1, (len(self.rates), self.channels))  # B R M N
        mixed = torch.einsum("brmn,br->bnm", made, mixture)
        return unpatchify(self.basis(mixed), self.patch_size, *size)

    def patches(self, code: Tensor, mixture: Tensor) -> Tensor:
        """Return the components B N M that the bits of each token say of its patch.

        code: B N K. mixture: B R, see :meth:`mixture`. Where bits of the class are not kept, it is the mean of those
        that are left.
        """
        named, bits = code.split([self.class_bits, code.shape[-1] - self.class_bits], dim=-1)
        signs = class_signs(self.class_bits).to(code)
        share = ((1 + named[:, :, None] * signs) / 2).prod(dim=-1)  # B N classes; 1 for one of them where all is kept
        factors = torch.einsum("br,rcj->bcj", mixture, self.factors)
        blocks = share[..., None] * bits[:, :, None] * factors[:, None]  # B N classes J
        return share @ self.class_means + blocks.flatten(2) @ self.class_vectors.flatten(0, 1)

    def mixture(self, code: Tensor) -> Tensor:
        """Return the weight of each rate for each image, B R: linear between the two rates around its kept bits."""
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
    """Return a parameter of zeros, to be fitted, then stored and averaged with the weights, but never trained."""
    return nn.Parameter(torch.zeros(*shape), requires_grad=False)
