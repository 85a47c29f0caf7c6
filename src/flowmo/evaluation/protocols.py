"""The two protocols measure as the released evaluation does, and as it should be done (Section 4, Appendix B).

A number is worth nothing without its protocol. ``published`` exists to be compared with the paper's tables.
``standard`` serves everything else; there a picture's numbers depend on the picture, the model, the sampler and the
seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import to_uint8
from ..errors import ConfigError
from ..flow import seeded_noise
from ..metrics.inception import Input
from ..metrics.pixels import pooled_psnr


@dataclass(frozen=True)
class Protocol:
    """A way of measuring; pictures are sampled and pooled in groups of consecutive places in the data."""

    # What --protocol and results call it.
    name: str
    # Pictures whose noise is drawn at once, and whose squared errors are pooled before the logarithm of PSNR.
    group: int
    # Whether floats are truncated, not rounded, to make the 8-bit pictures of PSNR and SSIM.
    truncate: bool
    # Whether the networks of LPIPS and of rFID see the 8-bit picture, as it would be saved, or the decoder's floats.
    eight_bits: bool
    # How Inception is given its pictures.
    inception: Input

    def to_uint8(self, images: Tensor) -> Tensor:
        """Return float images in [-1, 1] as uint8, originals as well as reconstructions.

        Truncated, 63 of the 256 levels of an original come out one too low, by the rounding of its own float, as
        published (E6).
        """
        if not self.truncate:
            return to_uint8(images)
        return ((images.float().clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)

    def for_networks(self, images: Tensor) -> Tensor:
        """Return what LPIPS and Inception see of images B 3 H W in [-1, 1]."""
        return self.to_uint8(images).float() / 127.5 - 1 if self.eight_bits else images

    def groups(self, places: Sequence[int]) -> np.ndarray:
        """Return the group (N,) that each image belongs to, by its place in the data."""
        return np.asarray(places) // self.group

    def psnr(self, squared_errors: Sequence[float], places: Sequence[int]) -> float:
        """Return :func:`pooled_psnr` of images by their places in the data."""
        return pooled_psnr(squared_errors, self.groups(places).tolist())

    def conventions(self, seed: int) -> dict[str, Any]:
        """Return what a result says of the protocol, as JSON data."""
        return asdict(self) | {"noise": self.noise_in_words(seed)}

    def noise_in_words(self, seed: int) -> str:
        """Return how each picture's noise follows from the seed."""
        if self.group == 1:
            return f"picture i from seed {seed} + i"
        return f"one generator of seed {seed}, {self.group} pictures at a time"


PUBLISHED = Protocol("published", group=5, truncate=True, eight_bits=False, inception="pytorch_fid")
"""This protocol measures as the released evaluation does:

- noise comes from one CPU generator in batches of 5, so that a picture's noise depends on all pictures before it (E1);
- PSNR is of the error pooled over each batch of 5, then averaged over batches (E2);
- SSIM has scikit-image's default window and is of each picture (E3), LPIPS is printed for AlexNet and VGG (E4);
- rFID is of float reconstructions, never 8-bit, against the same centre crops, enlarged as pytorch-fid does it (E5);
- 8-bit pictures are truncated (E6).

What stays ours: float32 throughout, one noise stream for any number of processes (the released one has one for each,
E1), and a last batch of fewer than 5 pictures where the number is no multiple."""

STANDARD = Protocol("standard", group=1, truncate=False, eight_bits=True, inception="tensorflow")
"""This protocol measures each picture by itself:

- noise comes from a seed of its own, the place of the picture in the data added to the run's seed (against E1);
- PSNR is of each picture, then averaged (against E2); SSIM and LPIPS are as above (E3, E4);
- LPIPS, rFID and all else see the rounded 8-bit picture that a user would save (against E5, E6), and Inception enlarges
  it as its own graph does.

Neither batch size nor number of processes enters."""

PROTOCOLS = {protocol.name: protocol for protocol in (STANDARD, PUBLISHED)}


def get_protocol(name: str) -> Protocol:
    """Return the protocol of this name. Raises ConfigError for a name that is not known."""
    if name not in PROTOCOLS:
        raise ConfigError(f"there is no protocol {name!r}; choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


class Noise:
    """Starting noise of pictures by their places in the data, the same in whatever order and batches it is asked for.

    count: pictures in the data, which the last group of one generator depends on.
    shape: of one picture's noise, (3, H, W).
    """

    def __init__(self, protocol: Protocol, seed: int, count: int, shape: tuple[int, int, int]) -> None:
        self.protocol, self.seed, self.count, self.shape = protocol, seed, count, shape
        self._rewind()

    def of(self, places: Sequence[int]) -> Tensor:
        """Return the noise of each place, B 3 H W, float32 on the CPU."""
        if self.protocol.group == 1:
            return seeded_noise([self.seed + place for place in places], len(places), self.shape)
        rows = [self._of_group(place // self.protocol.group)[place % self.protocol.group] for place in places]
        return torch.stack(rows) if rows else torch.empty(0, *self.shape)

    def _of_group(self, group: int) -> Tensor:
        """Return the noise of one group.

        A generator cannot jump, so the groups before are drawn and thrown away, which is far cheaper than sampling.
        """
        if group < self._drawn - 1:
            self._rewind()
        while self._drawn <= group:
            size = min(self.protocol.group, self.count - self._drawn * self.protocol.group)
            self._last = torch.randn((size, *self.shape), generator=self._generator)
            self._drawn += 1
        return self._last

    def _rewind(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)
        self._drawn = 0  # groups
        self._last = torch.empty(0)
