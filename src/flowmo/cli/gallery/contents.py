"""What a gallery is made of: models, pictures, codecs, and the cells of its panes."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ...codec import check_image_size
from ...comparison.codecs import CODECS, Codec, Distance, get_codec
from ...comparison.coded import Search, code_all
from ...comparison.compare import check_targets
from ...comparison.reconstructions import Reconstruction, codec_reconstructions
from ...data import fit_picture, open_split, to_tensor, to_uint8
from ...errors import ConfigError, DataError, ImageError, WeightsError
from ...evaluation.result_store import ResultStore
from ...evaluation.results import read_result
from ...perceptual import load_lpips
from ...quantize.tokens import payload_size
from ...tokenizer import FlowMo
from ...viewing.gallery import Cell, Pane, lossless
from .. import common
from ..figure.shared import labels

IN_WORDS = {"jpeg": "JPEG", "webp": "WebP", "avif": "AVIF", "jpeg2000": "JPEG 2000", "jpegxl": "JPEG XL"}
RESULT, STORE = "comparison.json", "progress.jsonl"  # in a folder of flowmo compare

Models = list[tuple[str, FlowMo]]
Columns = list[tuple[Pane, list[Cell | None]]]


def load_models(arguments: argparse.Namespace) -> Models:
    """(short name, model) of --models. Raises WeightsError or ConfigError."""
    models = common.load_tokenizers(arguments)
    return list(zip(labels(arguments.models), models, strict=True))


def picture_size(arguments: argparse.Namespace, models: Models) -> tuple[int, int]:
    """(height, width) of --size, or of the models. Raises ConfigError where they differ, ImageError."""
    sizes = sorted({model.config.image_size for _, model in models})
    if arguments.size is None and len(sizes) > 1:
        raise ConfigError(f"the models take pictures of {sizes[0]} to {sizes[-1]} pixels; choose a size: --size")
    size = arguments.size or (sizes[0], sizes[0])
    for _, model in models:
        check_image_size(size, model.config)
    for config in dict.fromkeys(model.config for _, model in models):
        common.tell_other_size(size, config)
    return size


def targets(arguments: argparse.Namespace, models: Models, size: tuple[int, int]) -> list[int]:
    """--bytes, or what the models take. Raises ConfigError."""
    own = [payload_size(model.config.num_tokens, model.config.bits_per_token) for _, model in models]
    found = sorted(set(arguments.bytes or own))
    check_targets(found, size[0] * size[1])
    return found


def search(arguments: argparse.Namespace, targets: Sequence[int]) -> Search:
    """How codecs look for these numbers of bytes; with --compared as that did, so that its files are found. Raises
    ConfigError or DataError where it has no such files."""
    if arguments.compared is None:
        return Search(tuple(targets), ("payload",))
    found = read_result(arguments.compared / RESULT)
    if found.kind != "comparison" or not (arguments.compared / STORE).is_file():
        raise ConfigError(f"{arguments.compared} is no folder of 'flowmo compare'")
    known, counted = found.content["bytes"], found.content["counted"]
    if "payload" not in counted or not set(targets) <= set(known):
        raise ConfigError(
            f"{arguments.compared} has files of {', '.join(map(str, known))} bytes ({' and '.join(counted)}), but a "
            f"gallery of {', '.join(map(str, targets))} (payload) is asked for; say other --bytes, or no --compared"
        )
    return Search(tuple(known), tuple(counted), tuple(found.content["scales"]))


def load_distance(arguments: argparse.Namespace, progress: common.Progress) -> Distance | None:
    """LPIPS (Alex) on the device, for pictures on the CPU; None, with a note, where nobody gave its weights."""
    device = common.find_device(arguments.device)
    try:
        alex = load_lpips("alex", arguments.lpips).to(device)
    except WeightsError as error:
        if arguments.lpips is not None or arguments.codecs:
            raise
        progress.say(f"note: LPIPS is n/a, and codecs cannot be chosen by it: {error} (--lpips FILE)")
        return None
    return lambda images, reference: alex(images.to(device), reference.to(device)).cpu()


def choose_codecs(arguments: argparse.Namespace, lpips: bool, progress: common.Progress) -> list[Codec]:
    """--codecs, or all that are installed. Raises ConfigError for one that is asked for and missing."""
    if arguments.codecs is not None:
        return [get_codec(name) for name in dict.fromkeys(arguments.codecs)]
    found = []
    for name in CODECS if lpips else ():
        try:
            found.append(get_codec(name))
        except ConfigError as error:
            progress.say(f"note: {error}")
    return found


def load_pictures(
    arguments: argparse.Namespace, size: tuple[int, int], progress: common.Progress
) -> tuple[Tensor, list[str], list[int]]:
    """The first --limit pictures: uint8 N 3 H W, cut to ``size`` as in the paper (C1); their names; and their places.
    Those that cannot be read go to ``progress``. Raises DataError."""
    images, names, places = [], [], []
    place = 0
    for text in arguments.pictures:
        source, _ = open_split(text, arguments.split, "validation", arguments.limit)
        for index in range(min(len(source), arguments.limit - place)):
            try:
                images.append(to_uint8(to_tensor(fit_picture(source[index], *size))))
                names.append(source.name(index))
                places.append(place)
            except ImageError as error:
                progress.skip(source.name(index), error)
            place += 1
    progress.expect(place)
    if not images:
        raise DataError("none of the pictures can be read")
    return torch.stack(images), names, places


def cells(shown: Iterable[Reconstruction | None], progress: common.Progress) -> list[Cell | None]:
    """Counts each on ``progress``."""
    found: list[Cell | None] = []
    for one in shown:
        found.append(None if one is None else _cell(one))
        progress.advance()
    return found


def coded(
    arguments: argparse.Namespace,
    codecs: Sequence[Codec],
    targets: Sequence[int],
    wanted: Search,
    images: Tensor,
    lpips: Distance,
    progress: common.Progress,
) -> Columns:
    """A pane for each codec and number of bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / STORE
        if arguments.compared is not None:
            shutil.copyfile(arguments.compared / STORE, path)
        chosen = code_all(images, codecs, wanted, lpips, ResultStore(path), lambda _: progress.advance())
    columns: Columns = []
    for target in targets:
        for codec in codecs:
            files = [choices["payload", target] for choices in chosen[codec.name]]
            found = [None if one is None else _cell(one) for one in codec_reconstructions(codec, images, files, lpips)]
            columns.append((Pane(named(IN_WORDS[codec.name], target, targets), "codec", codec.about), found))
    return columns


def named(name: str, target: int, targets: Sequence[int]) -> str:
    """With its number of bytes where there are several."""
    return name if len(targets) == 1 else f"{name}, {target} B"


def to_picture(pixels: Tensor) -> Image.Image:
    """uint8 3 H W -> RGB picture."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())


def _cell(one: Reconstruction) -> Cell:
    return Cell(
        lossless(to_picture(one.pixels)), one.payload_bytes, one.file_bytes, one.psnr, one.lpips, one.about
    )  # fmt: skip
