"""Columns of a gallery: pictures by our models, thumbnails and codecs at the same bytes (as in Figures 4 and 10)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from ..errors import ConfigError
from ..evaluation.result_store import ResultStore
from ..evaluation.results import read_result
from ..viewing.gallery import Cell, Pane, lossless
from .adapters import Peer
from .codecs import Codec, Distance
from .coded import Search, code_all
from .reconstructions import Reconstruction, codec_reconstructions, peer_reconstructions
from .report import RESULT, STORE

IN_WORDS = {"jpeg": "JPEG", "webp": "WebP", "avif": "AVIF", "jpeg2000": "JPEG 2000", "jpegxl": "JPEG XL"}
Column = tuple[Pane, list[Cell | None]]


def original_column(images: Tensor) -> Column:
    """Return the column of the pictures themselves. images: uint8 N 3 H W."""
    return Pane("Original", "original"), [Cell(lossless(uint8_to_image(image))) for image in images]


def peer_column(
    pane: Pane,
    peer: Peer,
    images: Tensor,
    seeds: Sequence[int],
    lpips: Distance | None,
    batch_size: int,
    advance: Callable[[], None],
) -> Column:
    """Return the column of a peer's reconstructions; see ``peer_reconstructions``."""
    return pane, _cells(peer_reconstructions(peer, images, seeds, lpips, batch_size), advance)


def codec_columns(
    codecs: Sequence[Codec],
    targets: Sequence[int],
    wanted: Search,
    images: Tensor,
    lpips: Distance,
    compared: Path | None,
    advance: Callable[[], None],
) -> list[Column]:
    """Return a column for each number of bytes and each codec.

    compared: a folder of ``flowmo compare`` whose coded files are used again, or None.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / STORE
        if compared is not None:
            shutil.copyfile(compared / STORE, path)
        chosen = code_all(images, codecs, wanted, lpips, ResultStore(path), lambda _: advance())
    columns: list[Column] = []
    for target in targets:
        for codec in codecs:
            files = [choices["payload", target] for choices in chosen[codec.name]]
            cells = _cells(codec_reconstructions(codec, images, files, lpips), lambda: None)
            columns.append((Pane(named(IN_WORDS[codec.name], target, targets), "codec", codec.about), cells))
    return columns


def search_like(compared: Path | None, targets: Sequence[int]) -> Search:
    """Return the search for files of these numbers of bytes, as a folder of ``flowmo compare`` made it.

    compared: that folder, whose files are then found; None searches without headers, at all scales.
    Raises ConfigError or DataError where the folder has no such files.
    """
    if compared is None:
        return Search(tuple(targets), ("payload",))
    found = read_result(compared / RESULT)
    if found.kind != "comparison" or not (compared / STORE).is_file():
        raise ConfigError(f"{compared} is no folder of 'flowmo compare'")
    known, counted = found.content["bytes"], found.content["counted"]
    if "payload" not in counted or not set(targets) <= set(known):
        raise ConfigError(
            f"{compared} has files of {', '.join(map(str, known))} bytes ({' and '.join(counted)}), but a "
            f"gallery of {', '.join(map(str, targets))} (payload) is asked for; say other --bytes, or no --compared"
        )
    return Search(tuple(known), tuple(counted), tuple(found.content["scales"]))


def named(name: str, target: int, targets: Sequence[int]) -> str:
    """Return a name with its number of bytes where there are several."""
    return name if len(targets) == 1 else f"{name}, {target} B"


def uint8_to_image(pixels: Tensor) -> Image.Image:
    """Return uint8 3 H W as an RGB picture."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())


def _cells(reconstructions: Iterable[Reconstruction | None], advance: Callable[[], None]) -> list[Cell | None]:
    found: list[Cell | None] = []
    for one in reconstructions:
        found.append(None if one is None else _cell(one))
        advance()
    return found


def _cell(one: Reconstruction) -> Cell:
    data = lossless(uint8_to_image(one.pixels))
    return Cell(data, one.payload_bytes, one.file_bytes, one.psnr, one.lpips, one.about)
