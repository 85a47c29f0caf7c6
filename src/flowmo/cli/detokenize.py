"""``flowmo detokenize``: decodes the images of .flowmo files and shards, as PNG files.

The model must be the one that coded them, or one with the same encoder; a packaged one is found by itself. A shard of
another tokenizer names it, and --peer gives its weights.
"""

from __future__ import annotations

import argparse
import sys

from ..coding.files import decode_entries, open_token_files, packaged_tokenizer, shard_image_size
from ..comparison.peers.tokenizer import PeerTokenizer, open_square
from ..devices import usable_device
from ..files import folder_in_words
from ..progress import Progress
from ..text import images_in_words
from ..tokenizer import FlowMo
from ..viewing import write_png
from ..weights.load import PACKAGED
from .arguments import common, models
from .arguments.fields import add_flag
from .arguments.peers import add_decoding_peer, refuse_our_settings
from .printing import print_json

SAMPLER = ("steps", "rho", "guidance", "interval", "solver", "raw_weights")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_flag(
        parser,
        "files",
        str,
        ".flowmo files, shards, folders of .flowmo files, or quoted patterns",
        nargs="+",
        metavar="FILE",
    )
    common.add_output_arguments(parser, or_file=common.OR_PNG)
    parser.add_argument(
        "--original-size",
        action="store_true",
        help="scale to the size of the original; of a cropped picture, to the size of the part that was kept",
    )
    common.add_run_arguments(parser)
    common.add_sampling_arguments(parser)
    common.add_model_arguments(parser)
    add_decoding_peer(parser)


def run(arguments: argparse.Namespace) -> int:
    a, progress = arguments, Progress(0)
    entries, targets, bad = open_token_files(a.files, a.out, progress.skip, a.force)
    model: FlowMo | PeerTokenizer
    if a.peer:
        refuse_our_settings(a, "--peer", SAMPLER)
        model = open_square(a.peer, shard_image_size(entries), usable_device(a.device))
    else:
        if a.model == PACKAGED:
            a.model = packaged_tokenizer(entries)
            if a.model != PACKAGED:
                print(f"note: these are tokens of {a.model}, which decodes them", file=sys.stderr)
        model = models.load_model(a, tokens=True)
        models.tell_idle_guidance(a, model)
    progress.expect(len(entries) + bad)
    settings = models.sampling(a)
    written = []
    for place, image in decode_entries(model, entries, a.batch_size, a.original_size, progress.skip, **settings):
        entry = entries[place]
        write_png(targets[place], image)
        written.append({"file": str(entry.file), "name": entry.name, "output": str(targets[place])})
        progress.advance()
    code = progress.finish()
    if a.json:
        name = a.peer.partition("=")[0] if a.peer else a.model
        print_json({"model": name, "pictures": written, "bad": progress.bad})
    elif written:
        print(f"{images_in_words(len(written))} in {folder_in_words(a.out)}")
    return code
