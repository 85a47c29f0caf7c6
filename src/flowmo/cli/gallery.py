"""``flowmo gallery``: one page to look at pictures with, which opens in any browser from any disk and needs no network:
the originals, what our models make of them, image codecs and an RGB thumbnail at the same bytes. Two panes with a
divider to drag, zoom that follows in all of them, and of each picture the bytes, PSNR and LPIPS, by which it sorts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .._version import __version__
from ..comparison.adapters import FlowMoPeer, ThumbnailPeer
from ..comparison.codecs import CODECS, Codec, Distance, get_codec
from ..comparison.columns import IN_WORDS, codec_columns, named, original_column, peer_column, search_like
from ..comparison.inputs import byte_targets, common_size, nearest
from ..data import each_image, open_split
from ..errors import ConfigError, DataError, WeightsError
from ..evaluation.protocols import STANDARD
from ..evaluation.results import labels
from ..experiments.sampling import sampler_in_words
from ..perceptual import load_lpips
from ..tokenizer import FlowMo
from ..viewing.gallery import Pane, Picture, write_gallery
from ..weights.load import PACKAGED
from . import common

Models = list[tuple[str, FlowMo]]
OUT = Path("flowmo-gallery.html")
LIMIT = 100
LARGE = 200_000_000  # bytes of a page above which browsers take their time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "pictures",
        nargs="+",
        metavar="PICTURE",
        help="picture files, folders of them, quoted patterns, or data sets: tars, Parquet files, a .npy array",
    )
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help=f"the page (default: {OUT})")
    parser.add_argument("--force", action="store_true", help="overwrite a page that exists")
    parser.add_argument(
        "--models",
        nargs="+",
        default=[PACKAGED],
        metavar="MODEL",
        help=f"one or several, each a {common.MODEL_HELP} (default: {PACKAGED})",
    )
    parser.add_argument(
        "--codecs",
        nargs="*",
        metavar="CODEC",
        help=f"any of {', '.join(CODECS)}; none after the flag leaves them out (default: those that are installed)",
    )
    parser.add_argument(
        "--bytes",
        type=common.positive,
        nargs="+",
        metavar="N",
        help="bytes a picture, without headers, that codecs and thumbnails may take (default: what the models take)",
    )
    parser.add_argument(
        "--compared",
        type=Path,
        metavar="DIR",
        help="folder of 'flowmo compare', whose coded files are used again where it had the same pictures",
    )
    shown = f"the first N pictures (default: {LIMIT})"
    common.add_data_arguments(parser, data=None, default=LIMIT, help=shown)
    parser.add_argument("--size", type=common.size, metavar="HxW", help="of the pictures (default: the models' own)")
    parser.add_argument("--title", default="FlowMo gallery", help="of the page (default: %(default)s)")
    common.add_weights_arguments(parser, "lpips")
    common.add_run_arguments(parser)
    common.add_sampling_arguments(parser, "picture i is sampled from seed N + i")
    common.add_model_arguments(parser, flag=False)


def run(arguments: argparse.Namespace) -> int:
    if arguments.out.is_dir():
        raise ConfigError(f"{arguments.out} is a folder; name the page, such as {arguments.out / OUT.name}")
    common.check_targets([arguments.out], [], arguments.force)
    progress = common.Progress(0)
    models = _load_models(arguments)
    configs = [model.config for _, model in models]
    size = common_size(configs, arguments.size)
    for config in dict.fromkeys(configs):
        common.tell_other_size(size, config)
    targets = byte_targets([model.config for _, model in models], size, arguments.bytes)
    search = search_like(arguments.compared, targets)
    lpips = _load_distance(arguments, progress)
    codecs = _choose_codecs(arguments, lpips is not None, progress)
    images, names, places = _load_pictures(arguments, size, progress)
    code = progress.finish()

    bar = common.Progress(len(images) * (len(models) + len(targets) + len(codecs)), "reconstructions")
    columns = [original_column(images)]
    a, given = arguments, common.sampler_given(arguments)
    seeds = [a.seed + place for place in places]
    for name, model in models:
        pane = Pane(name, "model", sampler_in_words(common.sampler_of(a, model)))
        peer = FlowMoPeer(name, model, given)
        columns.append(peer_column(pane, peer, images, seeds, lpips, a.batch_size, bar.advance))
    for target in targets:
        pane = Pane(named("RGB thumbnail", target, targets), "thumbnail", "18 bits a pixel, enlarged")
        columns.append(peer_column(pane, ThumbnailPeer(target), images, places, lpips, a.batch_size, bar.advance))
    if lpips is not None and codecs:
        columns += codec_columns(codecs, targets, search, images, lpips, a.compared, bar.advance)

    panes = [pane for pane, _ in columns]
    pictures = [Picture(name, [cells[i] for _, cells in columns]) for i, name in enumerate(names)]
    notes = _notes(arguments, panes, codecs, lpips is not None)
    written = write_gallery(arguments.out, panes, pictures, size, arguments.title, notes)
    if written > LARGE:
        bar.say(f"note: a page of {_megabytes(written)} opens slowly; --limit makes it smaller")
    bar.finish()
    if arguments.json:
        result = {
            "page": str(arguments.out),
            "page_bytes": written,
            "pictures": names,
            "panes": [pane.name for pane in panes],
            "bytes": targets,
            "bad": progress.bad,
        }
        common.print_json(result)
    else:
        count = f"{len(names)} picture{'s' * (len(names) != 1)}"
        print(f"{count} in {len(panes)} panes: {', '.join(pane.name for pane in panes)}")
        print(f"the page, {_megabytes(written)}, is {arguments.out}; it opens in any browser")
    return code


def _notes(arguments: argparse.Namespace, panes: Sequence[Pane], codecs: Sequence[Codec], lpips: bool) -> list[str]:
    """What the numbers are, for the end of the page."""
    models = "; ".join(f"{pane.name}: {pane.about}" for pane in panes if pane.kind == "model")
    notes = [
        "The pictures are in this page without loss, so what is seen is what was measured, rounded to 8 bits.",
        f"Models: {models}; {STANDARD.noise_in_words(arguments.seed)}. Their bytes are the tokens'.",
    ]
    if codecs:
        settings = "; ".join(f"{IN_WORDS[codec.name]}: {codec.about}" for codec in codecs)
        notes.append(
            "Codecs: of the best files at several scales that stay within the bytes, counted without headers, the one "
            f"nearest to the original by LPIPS, enlarged again. {settings}."
        )
    notes.append(f"{'LPIPS is of AlexNet. ' * lpips}Made with flowmo {__version__}.")
    return notes


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _load_models(arguments: argparse.Namespace) -> Models:
    """(short name, model) of --models. Raises WeightsError or ConfigError."""
    models = common.load_tokenizers(arguments)
    return list(zip(labels(arguments.models), models, strict=True))


def _load_distance(arguments: argparse.Namespace, progress: common.Progress) -> Distance | None:
    """LPIPS (Alex) on the device, for pictures on the CPU; None, with a note, where nobody gave its weights."""
    device = common.find_device(arguments.device)
    try:
        alex = load_lpips("alex", arguments.lpips).to(device)
    except WeightsError as error:
        if arguments.lpips is not None or arguments.codecs:
            raise
        progress.say(f"note: LPIPS is n/a, and codecs cannot be chosen by it: {error} (--lpips FILE)")
        return None
    return nearest(alex, device)


def _choose_codecs(arguments: argparse.Namespace, lpips: bool, progress: common.Progress) -> list[Codec]:
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


def _load_pictures(
    arguments: argparse.Namespace, size: tuple[int, int], progress: common.Progress
) -> tuple[Tensor, list[str], list[int]]:
    """The first --limit pictures: uint8 N 3 H W; their names; and their places among all of them. Those that cannot be
    read go to ``progress``. Raises DataError."""
    images, names, places = [], [], []
    first = 0
    for text in arguments.pictures:
        source, _ = open_split(text, arguments.split, "validation", arguments.limit)
        count = min(len(source), arguments.limit - first)
        for place, image in each_image(source, size, range(count), progress.skip, eight_bits=True):
            images.append(image)
            names.append(source.name(place))
            places.append(first + place)
        first += count
    progress.expect(first)
    if not images:
        raise DataError("none of the pictures can be read")
    return torch.stack(images), names, places
