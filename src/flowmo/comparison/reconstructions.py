"""Reconstructions with their own numbers, picture by picture, to be looked at (as in Figures 4 and 10).

Numbers are of the 8-bit pictures that are shown. Bytes are counted as in compare.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..codec import HEADER_SIZE
from ..data import to_float, to_tensor, to_uint8
from ..evaluation.reconstruction import measure_each
from .adapters import FlowMoPeer, Peer
from .codecs import Codec, CodecFile, Distance, restore


@dataclass(frozen=True)
class Reconstruction:
    """One reconstructed picture with its bytes and its distances to the original."""

    pixels: Tensor  # uint8 3 H W
    payload_bytes: int | None  # without headers, None where there is no such number
    file_bytes: int | None  # with headers, None where there is no file
    psnr: float  # dB
    lpips: float | None  # None without a network, or where it takes no pictures so small
    about: str = ""  # how it was made, in words


def peer_reconstructions(
    peer: Peer, images: Tensor, seeds: Sequence[int], lpips: Distance | None, batch_size: int = 16
) -> Iterator[Reconstruction]:
    """Yield the reconstruction of each picture by a peer. images: uint8 N 3 H W. seeds: one a picture."""
    header = HEADER_SIZE if isinstance(peer, FlowMoPeer) else None
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        reconstructions = to_uint8(peer.reconstruct(to_float(batch), seeds[start : start + batch_size]))
        payload = peer.bytes_per_image(images.shape[2], images.shape[3])
        whole = None if payload is None or header is None else payload + header
        for pixels, psnr, distance in _measured(reconstructions, batch, lpips):
            yield Reconstruction(pixels, payload, whole, psnr, distance)


def codec_reconstructions(
    codec: Codec, images: Tensor, chosen: Sequence[CodecFile | None], lpips: Distance | None
) -> Iterator[Reconstruction | None]:
    """Yield the reconstruction of each picture by its chosen file, None where there is none. images: uint8 N 3 H W."""
    for image, choice in zip(images, chosen, strict=True):
        if choice is None:
            yield None
            continue
        reconstructions = to_uint8(to_tensor(restore(codec, choice.data, (image.shape[1], image.shape[2]))))
        about = f"scale {choice.scale:g}, quality {choice.level} of 0 to {codec.levels - 1}"
        for pixels, psnr, distance in _measured(reconstructions[None], image[None], lpips):
            yield Reconstruction(pixels, choice.payload_bytes, choice.file_bytes, psnr, distance, about)


def _measured(
    reconstructions: Tensor, images: Tensor, lpips: Distance | None
) -> Iterator[tuple[Tensor, float, float | None]]:
    """Yield each reconstruction with its PSNR in dB and its LPIPS. Both uint8 B 3 H W."""
    psnr, distances = measure_each(to_float(reconstructions), to_float(images), lpips)
    yield from zip(reconstructions, psnr, distances, strict=True)
