"""Pairs of pictures in numbers: PSNR and LPIPS (Alex) of a reconstruction, and of the thumbnail of the same bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor

from ..errors import ImageError
from ..pixel_values import to_uint8
from .pixels import psnr

Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Scores:
    """psnr in dB (higher is closer), lpips (lower is closer); None where LPIPS cannot be had."""

    psnr: float
    lpips: float | None
    thumbnail_psnr: float
    thumbnail_lpips: float | None


@torch.no_grad()
def score(images: Tensor, reconstructions: Tensor, thumbnails: Tensor, lpips: Distance | None) -> list[Scores]:
    """One score a picture. All B 3 H W in [-1, 1]; ``images`` as the model saw them. Everything is compared as it is
    saved, in 8 bits. LPIPS is None without a network, or for pictures smaller than the network takes."""
    a, b, c = (_saved(x) for x in (images, reconstructions, thumbnails))
    columns = [psnr(b, a).tolist(), distances(lpips, b, a), psnr(c, a).tolist(), distances(lpips, c, a)]
    return [Scores(*row) for row in zip(*columns, strict=True)]


def mean_scores(scores: Sequence[Scores]) -> dict[str, float | None]:
    """The mean of each column, None where any of it is missing or there are no scores."""
    means: dict[str, float | None] = {}
    for field in fields(Scores):
        values = [asdict(s)[field.name] for s in scores]
        means[field.name] = sum(values) / len(values) if values and None not in values else None
    return means


@torch.no_grad()
def distances(lpips: Distance | None, a: Tensor, b: Tensor) -> list[float | None]:
    """LPIPS of each pair, B 3 H W in [-1, 1]; None without a network, or where it takes no pictures so small."""
    if lpips is None:
        return [None] * len(a)
    try:
        return [float(value) for value in lpips(a, b)]
    except ImageError:  # too small
        return [None] * len(a)


def _saved(images: Tensor) -> Tensor:
    return to_uint8(images).float() / 127.5 - 1
