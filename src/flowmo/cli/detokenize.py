"""``flowmo detokenize``: decodes the images of .flowmo files and shards, as PNG files. The model must be the one that
coded them, or one with the same encoder; a shard of another tokenizer names it, and --peer gives its weights."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch

from ..codec import Entry, check_decodable, coded_images, entries_of, is_shard, read_shard, token_batches
from ..comparison.peers.tokenizer import PeerTokenizer
from ..data import find_token_files, output_stems, relative_names, restore_size, safe_name
from ..devices import usable_device
from ..errors import ConfigError, FlowMoError, TokenFileError
from ..files import check_targets
from ..image_utils import to_pil
from ..quantize.tokens import Tokens
from ..tokenizer import FlowMo
from ..viewing import write_png
from . import common, models
from .fields import add_flag
from .peers import add_decoding_peer, open_peer_of, refuse_our_settings
from .printing import Progress, pictures_in_words, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_flag(
        parser,
        "files",
        str,
        ".flowmo files, shards, folders of .flowmo files, or quoted patterns",
        nargs="+",
        metavar="FILE",
    )
    common.add_output_arguments(parser)
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
    files = find_token_files(arguments.files)
    model: FlowMo | PeerTokenizer
    if arguments.peer:
        sampler = ("steps", "rho", "guidance", "interval", "solver", "raw_weights")
        refuse_our_settings(arguments, "--peer", sampler)
        model = open_peer_of(arguments.peer, _image_size(files), usable_device(arguments.device))
    else:
        model = models.load_model(arguments, tokens=True)
    if isinstance(model, FlowMo) and arguments.guidance is not None:
        models.tell_idle_guidance(models.sampler_of(arguments, model), "--guidance")
    progress = Progress(len(files))
    entries: list[Entry] = []
    names: list[Path] = []
    for file, name in zip(files, relative_names(arguments.files, files), strict=True):
        try:
            found = entries_of(file)
        except TokenFileError as error:
            progress.skip(file, error)
            continue
        entries += found
        names += [name if entry.row is None else safe_name(entry.name) for entry in found]
    targets = [arguments.out / f"{stem}.png" for stem in output_stems(names, [".png"])]
    check_targets(targets, files, arguments.force)

    progress.expect(len(entries) + len(progress.bad))
    written = []
    check = model.check_decodable if isinstance(model, PeerTokenizer) else partial(check_decodable, config=model.config)
    images = coded_images(entries, model.fingerprint(), check, progress.skip)
    for batch in token_batches(images, arguments.batch_size):
        first = batch[0].tokens
        tokens = Tokens(torch.cat([item.tokens.indices for item in batch]), first.bits_per_group, first.image_size)
        decoded = to_pil(model.detokenize(tokens, uint8=True, **models.sampling(arguments)))
        for item, picture in zip(batch, decoded, strict=True):
            entry = entries[item.index]
            try:
                if (arguments.original_size or item.fit == "whole") and item.original_size is not None:
                    picture = restore_size(picture, item.original_size, item.fit)
            except FlowMoError as error:
                progress.skip(f"{entry.file}: {entry.name}", error)
                continue
            write_png(targets[item.index], picture)
            written.append({"file": str(entry.file), "name": entry.name, "output": str(targets[item.index])})
            progress.advance()
    code = progress.finish()
    if arguments.json:
        name = arguments.peer.partition("=")[0] if arguments.peer else arguments.model
        print_json({"model": name, "pictures": written, "bad": progress.bad})
    elif written:
        print(f"{pictures_in_words(len(written))} in {arguments.out}")
    return code


def _image_size(files: list[Path]) -> tuple[int, int]:
    """Return the (height, width) of the first shard's images. Raises ConfigError where there is none."""
    for file in files:
        if is_shard(file):
            return read_shard(file).tokens.image_size
    raise ConfigError("--peer is for shards of another tokenizer's tokens; these are none")
