"""The flags of the gallery, and its course."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..._version import __version__
from ...comparison.adapters import FlowMoPeer, ThumbnailPeer
from ...comparison.codecs import CODECS, Codec
from ...comparison.reconstructions import peer_reconstructions
from ...errors import ConfigError
from ...evaluation.protocols import STANDARD
from ...viewing.gallery import Cell, Pane, Picture, lossless, write_gallery
from ...weights.load import PACKAGED
from .. import common
from ..figure.shared import sampler_in_words
from . import contents

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
    parser.add_argument(
        "--limit", type=common.positive, default=LIMIT, metavar="N", help=f"the first N pictures (default: {LIMIT})"
    )
    parser.add_argument(
        "--split", metavar="NAME", help="part of a data set (default: validation, or all without parts)"
    )
    parser.add_argument("--size", type=common.size, metavar="HxW", help="of the pictures (default: the models' own)")
    parser.add_argument("--title", default="FlowMo gallery", help="of the page (default: %(default)s)")
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="weights of LPIPS (Alex) where none are installed")
    common.add_run_arguments(parser)
    common.add_sampling_arguments(parser, "picture i is sampled from seed N + i")
    common.add_model_arguments(parser, flag=False)


def run(arguments: argparse.Namespace) -> int:
    if arguments.out.is_dir():
        raise ConfigError(f"{arguments.out} is a folder; name the page, such as {arguments.out / OUT.name}")
    common.check_targets([arguments.out], [], arguments.force)
    progress = common.Progress(0)
    models = contents.load_models(arguments)
    size = contents.picture_size(arguments, models)
    targets = contents.targets(arguments, models, size)
    search = contents.search(arguments, targets)
    lpips = contents.load_distance(arguments, progress)
    codecs = contents.choose_codecs(arguments, lpips is not None, progress)
    images, names, places = contents.load_pictures(arguments, size, progress)
    code = progress.finish()

    bar = common.Progress(len(images) * (len(models) + len(targets) + len(codecs)), "reconstructions")
    columns: list[tuple[Pane, list[Cell | None]]] = [
        (Pane("Original", "original"), [Cell(lossless(contents.to_picture(image))) for image in images])
    ]
    given = {key: value for key, value in common.sampling(arguments).items() if key != "seed" and value is not None}
    for name, model in models:
        shown = peer_reconstructions(
            FlowMoPeer(name, model, given),
            images,
            [arguments.seed + place for place in places],
            lpips,
            arguments.batch_size,
        )
        pane = Pane(name, "model", sampler_in_words(common.sampler_of(arguments, model)))
        columns.append((pane, contents.cells(shown, bar)))
    for target in targets:
        shown = peer_reconstructions(ThumbnailPeer(target), images, places, lpips, arguments.batch_size)
        pane = Pane(contents.named("RGB thumbnail", target, targets), "thumbnail", "18 bits a pixel, enlarged")
        columns.append((pane, contents.cells(shown, bar)))
    if lpips is not None and codecs:
        columns += contents.coded(arguments, codecs, targets, search, images, lpips, bar)

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
        settings = "; ".join(f"{contents.IN_WORDS[codec.name]}: {codec.about}" for codec in codecs)
        notes.append(
            "Codecs: of the best files at several scales that stay within the bytes, counted without headers, the one "
            f"nearest to the original by LPIPS, enlarged again. {settings}."
        )
    notes.append(f"{'LPIPS is of AlexNet. ' * lpips}Made with flowmo {__version__}.")
    return notes


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
