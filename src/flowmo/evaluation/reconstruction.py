"""Each reconstruction gets its PSNR and LPIPS (Alex), and so does the thumbnail of the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ..codec import HEADER_SIZE
from ..data import Fit, image_batches, to_float, to_image
from ..errors import FlowMoError, ImageError
from ..metrics.networks import Networks
from ..metrics.pixels import thumbnail
from ..metrics.table import column
from ..quantize.tokens import payload_size
from ..text import Table, number, plain
from ..tiles import patch_of
from ..tokenizer import FlowMo
from .evaluator import measure_pairs
from .protocols import STANDARD

Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Scores:
    """How close a reconstruction and its thumbnail are to the image."""

    psnr: float  # dB, higher is closer
    lpips: float | None  # lower is closer; None where it cannot be had
    thumbnail_psnr: float  # dB, of the thumbnail
    thumbnail_lpips: float | None  # of the thumbnail; None as above


@dataclass(frozen=True)
class Reconstructed:
    """A batch of images, coded and decoded again."""

    images: Tensor  # the reconstructions, B 3 H W in [-1, 1]
    thumbnails: Tensor  # the thumbnails of the same bits, alike
    bits: int | None  # of one image's code; None of a continuous latent, which has none
    scores: list[Scores]  # one an image

    def rate(self) -> dict[str, float | None]:
        """Return the bytes of one image, alone and in a .flowmo file, and its bits a pixel; None of what has none."""
        if self.bits is None:
            return {"payload_bytes": None, "file_bytes": None, "bits_per_pixel": None}
        payload = payload_size(1, self.bits)
        pixels = self.images.shape[2] * self.images.shape[3]
        return {
            "payload_bytes": payload,
            "file_bytes": HEADER_SIZE + payload,
            "bits_per_pixel": self.bits / pixels,
        }


@dataclass(frozen=True)
class ReconstructedImage:
    """A picture of a file, coded and decoded again."""

    index: int  # of the file among those given
    image: Image.Image  # the original as the model saw it
    thumbnail: Image.Image  # of the same bits
    reconstruction: Image.Image  # what the model made of it
    rate: dict[str, float | None]  # see ``Reconstructed.rate``
    scores: Scores  # how close the two came


def reconstruct_images(
    model: FlowMo,
    paths: Sequence[Path],
    size: tuple[int, int] | None,
    fit: Fit,
    batch_size: int,
    lpips: Distance | None,
    bits_per_token: Callable[[tuple[int, int]], int | None],
    on_bad: Callable[[Path, FlowMoError], None],
    **sampling: Any,
) -> Iterator[ReconstructedImage]:
    """Yield the pictures of files that can be read, in order, reconstructed a batch at a time.

    size: (height, width) that they get by ``fit``; None leaves each its own.
    bits_per_token: of a size, those kept; None for all.
    on_bad: called with each other file, and why.
    The rest is as :func:`reconstruct_and_score` takes it.
    """
    for batch in image_batches(paths, size, fit, batch_size, on_bad, multiple=patch_of(model.config)):
        images = to_float(batch.images.to(model.device))
        bits = bits_per_token((images.shape[2], images.shape[3]))
        found = reconstruct_and_score(model, images, lpips, bits, **sampling)
        for i, (index, scores) in enumerate(zip(batch.indices, found.scores, strict=True)):
            height, width = batch.original_sizes[i] if size is None else images.shape[2:]
            image, small, decoded = (
                to_image(x[i, :, :height, :width]) for x in (images, found.thumbnails, found.images)
            )
            yield ReconstructedImage(index, image, small, decoded, found.rate(), scores)


def reconstruct_and_score(
    model: FlowMo, images: Tensor, lpips: Distance | None, bits_per_token: int | None = None, **sampling: Any
) -> Reconstructed:
    """Return the reconstructions of images B 3 H W in [-1, 1], on the model's device, and how close they are.

    lpips: the network; None leaves LPIPS out.
    bits_per_token: those kept, of a model that codes at several rates.
    sampling: settings of ``FlowMo.detokenize``.
    """
    bits = None
    if model.quantizer.has_tokens:
        tokens = model.tokenize(images, bits_per_token)
        decoded, bits = model.detokenize(tokens, **sampling), tokens.bits_per_image
    else:
        decoded = model.reconstruct(images, **sampling)
    small = thumbnail(images, bits or thumbnail_bits(model, (images.shape[2], images.shape[3])))
    return Reconstructed(decoded, small, bits, score(images, decoded, small, lpips))


def score(images: Tensor, reconstructions: Tensor, thumbnails: Tensor, lpips: Distance | None) -> list[Scores]:
    """Return one score an image.

    All are B 3 H W in [-1, 1], ``images`` as the model saw them. Everything is compared as it is saved, in 8 bits.
    LPIPS is None without a network, or for images smaller than the network takes.
    """
    columns = [*measure_each(reconstructions, images, lpips), *measure_each(thumbnails, images, lpips)]
    return [Scores(*row) for row in zip(*columns, strict=True)]


def mean_scores(scores: Sequence[Scores]) -> dict[str, float | None]:
    """Return the mean of each column, None where any of it is missing or there are no scores."""
    means: dict[str, float | None] = {}
    for field in fields(Scores):
        values = [asdict(s)[field.name] for s in scores]
        means[field.name] = sum(values) / len(values) if values and None not in values else None
    return means


def scores_table(rows: Sequence[dict[str, Any]], mean: dict[str, float | None]) -> Table:
    """Return the rates and scores of images, and their mean. rows: "name", ``rate()`` and the scores, one an image."""
    header = ["file", "bytes", "file bytes", "bits/pixel", column("psnr").label, "LPIPS", "thumb. PSNR", "thumb. LPIPS"]
    rate = {"payload_bytes": "d", "file_bytes": "d", "bits_per_pixel": ".4f"}
    numbers = {"psnr": ".2f", "lpips": ".3f", "thumbnail_psnr": ".2f", "thumbnail_lpips": ".3f"}

    def cells(row: dict[str, Any], formats: dict[str, str]) -> list[str]:
        return [number(row[name], spec, "n/a") for name, spec in formats.items()]

    lines = [[_short(row["name"]), *cells(row, rate | numbers)] for row in rows]
    return header, [*lines, [f"mean of {len(rows)}", "", "", "", *cells(mean, numbers)]]


def _short(text: str, most: int = 48) -> str:
    text = plain(text)
    return text if len(text) <= most else "..." + text[3 - most :]


def measure_each(
    reconstructions: Tensor, images: Tensor, lpips: Distance | None
) -> tuple[list[float], list[float | None]]:
    """Return PSNR in dB and LPIPS of each pair, B 3 H W in [-1, 1].

    LPIPS is None without a network, or where it takes no images so small.
    """
    try:
        found = measure_pairs(reconstructions, images, Networks((), {"alex": lpips} if lpips else {}), STANDARD)
    except ImageError:  # too small
        found = measure_pairs(reconstructions, images, Networks(()), STANDARD)
    distances = found["lpips_alex"].tolist() if "lpips_alex" in found else [None] * len(images)
    return found["psnr"].tolist(), distances


def thumbnail_bits(model: FlowMo, size: tuple[int, int]) -> int:
    """Return the bits of the thumbnail that a reconstruction of (height, width) is compared with: those of its tokens.

    A code without tokens has no bits, so there the thumbnail has as many numbers as the latent, 6 bits each.
    """
    config = model.config
    if not model.has_tokens:
        return 6 * config.tokens_of(size) * config.latent_dim
    return config.tokens_of(size) * config.bits_per_token
