"""``flowmo gallery``: writes one page to look at pictures with, which opens in any browser and needs no network.

It opens from any disk, and shows the originals, what our models make of them, image codecs and an RGB thumbnail at the
same bytes. It has two panes with a divider to drag, zoom that follows in all of them, and of each picture the bytes,
PSNR and LPIPS, by which it sorts.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..comparison.codecs import CODECS, get_codec, installed_codecs
from ..comparison.columns import search_like
from ..comparison.inputs import byte_targets, common_size, nearest
from ..data import read_several
from ..devices import usable_device
from ..errors import ConfigError
from ..evaluation.results import labels
from ..files import check_targets
from ..perceptual import lpips_or_note
from ..pipelines.gallery import Gallery
from ..progress import Progress
from ..text import images_in_words
from .arguments import common, models
from .arguments.fields import add_flag, fields_of
from .arguments.values import positive, size
from .printing import print_json

OUT = Path("flowmo-gallery.html")
LIMIT = 100
LARGE = 200_000_000  # bytes of a page above which browsers take their time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = "picture files, folders of them, quoted patterns, or data sets: tars, Parquet files, a .npy array"
    parser.add_argument("images", nargs="+", metavar="IMAGE", help=what)
    add_flag(parser, "--out", Path, "the page", OUT)
    parser.add_argument("--force", action="store_true", help="overwrite a page that exists")
    common.add_models_arguments(parser, f"one or several, each a {common.MODEL_HELP}")
    what = f"any of {', '.join(CODECS)}; none after the flag leaves them out (default: those that are installed)"
    parser.add_argument("--codecs", nargs="*", metavar="CODEC", help=what)
    what = "bytes a picture, without headers, that codecs and thumbnails may take (default: what the models take)"
    add_flag(parser, "--bytes", positive, what, nargs="+")
    what = "folder of 'flowmo compare', whose coded files are used again where it had the same pictures"
    add_flag(parser, "--compared", Path, what, metavar="DIR")
    common.add_data_arguments(parser, data=None, default=LIMIT, help="the first N pictures")
    add_flag(parser, "--size", size, "of the pictures (default: the models' own)")
    parser.add_argument("--title", default="FlowMo gallery", help="of the page (default: %(default)s)")
    common.add_weights_arguments(parser, "lpips")
    common.add_run_arguments(parser)
    common.add_sampling_arguments(parser, "picture i is sampled from seed N + i")


def run(arguments: argparse.Namespace) -> int:
    a, progress = arguments, Progress(0)
    if a.out.is_dir():
        raise ConfigError(f"{a.out} is a folder; name the page, such as {a.out / OUT.name}")
    if a.out.suffix.lower() not in (".html", ".htm"):
        a.out = a.out.with_name(f"{a.out.name}.html")  # browsers show the text of files of other names
    check_targets([a.out], force=a.force)
    loaded = models.load_models(a, a.models, tokens=True)
    configs = [model.config for model in loaded]
    size = common_size(configs, a.size)
    for config in dict.fromkeys(configs):
        models.tell_other_size(size, config)
    targets = byte_targets(configs, size, a.bytes)
    note = "LPIPS is n/a, and codecs cannot be chosen by it"
    lpips = lpips_or_note(a.lpips, usable_device(a.device), progress.say, note, needed=bool(a.codecs))
    if a.codecs is not None:
        codecs = [get_codec(name) for name in dict.fromkeys(a.codecs)]
    else:
        codecs = installed_codecs(progress.say) if lpips is not None else []
    made: dict[str, Any] = {
        "models": list(zip(labels(a.models), loaded, strict=True)),
        "codecs": codecs,
        "targets": targets,
        "search": search_like(a.compared, targets),
        "lpips": None if lpips is None else nearest(lpips, usable_device(a.device)),
        "sampler": models.sampler_given(a),
    }
    gallery = Gallery(**fields_of(a, Gallery) | made)
    images = read_several(a.images, a.split, size, a.limit, progress.skip)
    progress.expect(len(images.places) + progress.bad_count)
    code = progress.finish()

    bar = Progress(gallery.count(images), "reconstructions")
    panes, written = gallery.write(a.out, images, a.title, bar.advance)
    megabytes = f"{written / 1e6:.1f} MB"
    if written > LARGE:
        bar.say(f"note: a page of {megabytes} opens slowly; a smaller --count makes it smaller")
    bar.finish()
    if a.json:
        result = {"page": str(a.out), "page_bytes": written, "pictures": images.names}
        result |= {"panes": panes, "bytes": targets, "bad": progress.bad}
        print_json(result)
    else:
        print(f"{images_in_words(len(images.names))} in {len(panes)} panes: {', '.join(panes)}")
        print(f"the page, {megabytes}, is {a.out}; it opens in any browser")
    return code
