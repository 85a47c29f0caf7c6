"""``flowmo tokenize``: codes pictures with the model's encoder.

Each becomes a .flowmo file of a 24-byte header and its packed tokens; or all of a data set go into one shard with their
labels (--out NAME.shard), which 'flowmo train-generator' reads: a killed command goes on where it was when it is given
again, and under torchrun several processes share the pictures. --out NAME.npy makes a NumPy array of them for other
people's models, a row an image, with labels and a JSON file beside it. --peer codes with another tokenizer. 'flowmo
detokenize' decodes tokens again.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..codec import HEADER_SIZE
from ..coding.files import TokenizeJob, Written, token_targets, tokenize_images
from ..comparison.peers.tokenizer import check_spec, open_square
from ..devices import usable_device
from ..errors import ConfigError, DataError
from ..files import check_folder_name
from ..progress import Progress
from ..text import images_in_words
from ..weights.load import PACKAGED
from .arguments import common, models, rates
from .arguments.fields import add_flag, fields_of
from .arguments.peers import add_peer_arguments, refuse_our_settings
from .arguments.values import positive
from .printing import print_json

if TYPE_CHECKING:
    from ..coding.shards import Opened
    from ..training import World

SHARDS = (".shard", ".safetensors", ".npy")
OF_SHARDS = ("peer", "labels", "label_file", "class_names", "split", "limit", "flip")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_image_arguments(parser)
    rates.add_rate_arguments(parser)
    common.add_output_arguments(parser, out=None, or_file=", or a .shard or .npy file")
    shard = parser.add_argument_group("one shard of a data set", "also by --out NAME.shard or NAME.npy")
    shard.add_argument("--shard", type=Path, metavar="FILE", help="write all into this .shard or .npy file")
    shard.add_argument("--split", help="part of a data set that has several, such as train")
    shard.add_argument("--limit", type=positive, metavar="N", help="code the first N pictures only")
    shard.add_argument("--flip", action="store_true", help="code the pictures mirrored: a second shard to train on")
    what = "number the sub-folders as classes; other data sets bring their labels"
    shard.add_argument("--labels", action="store_true", help=what)
    add_flag(shard, "--label-file", Path, "labels as text: a line 'label' or 'name label' a picture")
    shard.add_argument("--class-names", type=Path, metavar="FILE", help="names of the labels: a line each, or JSON")
    add_peer_arguments(parser, "--peer", "write the tokens of another tokenizer into a shard")
    common.add_run_arguments(parser)
    common.add_precision_arguments(parser)
    common.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    a = arguments
    if a.peer:
        given = ("size", "bits_per_token", "bytes", "bits_per_pixel", "precision", "compile", "raw_weights")
        refuse_our_settings(a, "--peer", given)
        if a.model != PACKAGED:
            raise ConfigError("give either --model or --peer")
        check_spec(a.peer)
    if a.shard is not None and a.out is not None:
        raise ConfigError("give either --shard FILE or --out DIR")
    if a.shard is not None or (a.out is not None and a.out.suffix.lower() in SHARDS):
        return _to_shard(a, a.shard or a.out)
    if a.out is not None:
        check_folder_name(a.out, ", or NAME.shard for all in one file")
    for name in OF_SHARDS:
        if getattr(a, name):
            flag = "count" if name == "limit" else name.replace("_", "-")
            raise ConfigError(f"--{flag} is for a shard of a data set; give --out NAME.shard too")
    return _to_files(a)


def _to_shard(arguments: argparse.Namespace, target: Path) -> int:
    from ..coding.shards import ShardRequest, labels_in_words, make_shard  # takes seconds, and only shards need it
    from ..training import World

    a = arguments
    request = ShardRequest(**fields_of(a, ShardRequest) | {"target": target})
    progress = Progress(0)
    with World.join(str(usable_device(a.device))) as world:
        made = make_shard(request, partial(_opened, a), world, progress.expect, progress.advance)
    if made is None:
        return 0
    for name, reason in made.bad:
        progress.skip(name, DataError(reason))
    code, shard = progress.finish(), made.shard
    if a.json:
        about: dict[str, Any] = {"shard": None, "images": 0, "labels": False, "classes": None}
        if shard is not None:
            about = {"shard": str(target), "images": len(shard.names), "labels": shard.labels is not None}
            about |= {"classes": shard.classes}
        result = _result(a, made.fingerprint, made.size, made.payload) | about
        print_json(result | {"images_per_s": made.rate, "bad": progress.bad})
    elif shard is not None:
        print(
            f"{len(shard.names):,} pictures, {made.payload} bytes of tokens each, {target.stat().st_size:,} bytes in "
            f"{target}; {made.new:,} coded now, {made.rate:,.1f} images/s"
        )
        print(labels_in_words(shard))
    return code


def _opened(arguments: argparse.Namespace, world: World) -> Opened:
    from ..coding.shards import Opened

    a = arguments
    a.device = str(world.device)
    if a.peer:
        size = (a.peer_size, a.peer_size)
        peer = open_square(a.peer, size, a.device)
        return Opened(peer, size, None, peer.config.name, peer.num_codes)
    model = models.load_model(a, tokens=True)
    size = models.coded_size(a, model.config)
    return Opened(model, size, rates.bits_per_token(a, model.config, size))


def _to_files(arguments: argparse.Namespace) -> int:
    a, out = arguments, arguments.out or Path(common.OUT)
    paths, targets = token_targets(a.images, out, a.force)
    model = models.load_model(a, tokens=True)
    size = models.own_size(a, model.config)
    bits = partial(rates.bits_per_token, a, model.config)
    progress = Progress(len(paths))
    written: list[Written] = []
    for one in tokenize_images(model, TokenizeJob(paths, targets, size, a.fit, a.batch_size, bits), progress.skip):
        written.append(one)
        progress.advance()
    code = progress.finish()
    payload = written[-1].payload if written else 0
    if a.json:
        rows = [{"file": str(one.image), "output": str(one.target), "payload_bytes": one.payload} for one in written]
        result = _result(a, model.fingerprint(), size, payload)
        print_json(result | {"file_bytes": HEADER_SIZE + payload, "pictures": rows, "bad": progress.bad})
    elif written:
        each = f"{HEADER_SIZE} + {payload} bytes each, " if size else ""
        total = sum(one.target.stat().st_size for one in written)
        print(f"{images_in_words(len(written))}, {each}{total:,} bytes together, in {out}")
    return code


def _result(
    arguments: argparse.Namespace, fingerprint: int, size: tuple[int, int] | None, payload: int
) -> dict[str, Any]:
    return {
        "model": arguments.peer.partition("=")[0] if arguments.peer else arguments.model,
        "fingerprint": f"{fingerprint:08x}",
        "image_size": list(size) if size else None,
        "fit": arguments.fit if size else "whole",
        "payload_bytes": payload,
    }
