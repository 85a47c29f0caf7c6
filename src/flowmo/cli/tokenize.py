"""``flowmo tokenize``: codes pictures with the model's encoder. Each becomes a .flowmo file of a 24-byte header and its
packed tokens; or all of a data set go into one shard with their labels (--out NAME.shard), which 'flowmo
train-generator' reads: a killed command goes on where it was when it is given again, and under torchrun several
processes share the pictures. --out NAME.npy makes a NumPy array of them for other people's models, a row an image, with
labels and a JSON file beside it. --peer codes with another tokenizer. 'flowmo detokenize' decodes tokens again."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from ..codec import HEADER_SIZE, Shard, TokenFile, files_beside, write_array, write_file
from ..comparison.peers.tokenizer import PeerTokenizer, check_spec
from ..data import find_pictures, output_stems, picture_batches, relative_names
from ..data.given import labels_of, open_given
from ..devices import usable_device
from ..errors import ConfigError, DataError
from ..files import check_targets
from ..generation import read_class_names
from ..quantize.tokens import payload_size
from ..tiles import patch_of
from ..tokenizer import FlowMo
from ..weights.load import PACKAGED
from . import common, models, rates
from .fields import add_flag, fields_of
from .peers import add_peer_arguments, open_peer_of, refuse_our_settings
from .printing import Progress, pictures_in_words, print_json
from .values import positive

SHARDS = (".shard", ".safetensors", ".npy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_picture_arguments(parser)
    rates.add_rate_arguments(parser)
    common.add_output_arguments(parser, out=None)
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
    if arguments.peer:
        given = ("size", "bits_per_token", "bytes", "bits_per_pixel", "precision", "compile", "raw_weights")
        refuse_our_settings(arguments, "--peer", given)
        if arguments.model != PACKAGED:
            raise ConfigError("give either --model or --peer")
        check_spec(arguments.peer)
    target: Path | None = arguments.shard
    if target is not None and arguments.out is not None:
        raise ConfigError("give either --shard FILE or --out DIR")
    if target is None and arguments.out is not None and arguments.out.suffix in SHARDS:
        target = arguments.out
    if target is None and arguments.out is not None and arguments.out.suffix.lower() == ".flowmo":
        raise ConfigError(
            f"--out {arguments.out} is the folder of .flowmo files, one a picture; give a folder's name, or NAME.shard "
            "for all in one file"
        )
    if target is None:
        for name in ("peer", "labels", "label_file", "class_names", "split", "limit", "flip"):
            if getattr(arguments, name):
                flag = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{flag} is for a shard of a data set; give --out NAME.shard too")
        return _to_files(arguments)
    if target.suffix not in SHARDS:
        raise ConfigError(f"--shard {target}: the name of a shard ends in {' or '.join(SHARDS)}")
    return _to_shard(arguments, target)


def _to_shard(arguments: argparse.Namespace, target: Path) -> int:
    from ..training import World  # takes seconds, and only shards need it
    from ..training.coding import CodingJob, code_data_set

    if arguments.labels and arguments.label_file:
        raise ConfigError("give either --labels, from the folders, or --label-file")
    source, classes, paths = open_given(arguments.pictures, arguments.split, arguments.limit, arguments.labels)
    labels = labels_of(source, arguments.label_file)
    if arguments.class_names:
        classes = read_class_names(arguments.class_names)
    array = target.suffix == ".npy"
    world = World.join(str(usable_device(arguments.device)))
    try:
        if world.main:
            targets = [target, *files_beside(target)] if array else [target]
            check_targets(targets, paths, arguments.force)
        world.wait()
        arguments.device = str(world.device)
        shard_file = target.with_name(f".{target.name}.shard") if array else target
        model, size, bits = _coder(arguments)
        classes = classes if labels else None
        about: dict[str, Any] = {
            "source": source,
            "size": size,
            "labels": labels,
            "classes": classes,
            "bits_per_token": bits,
        }
        if isinstance(model, PeerTokenizer):
            about |= {"tokenizer": model.config.name, "num_codes": model.num_codes}
        job = CodingJob(**fields_of(arguments, CodingJob) | about)
        progress = Progress(len(source))
        new, start = 0, time.perf_counter()

        def done(count: int, coded: bool) -> None:
            nonlocal new
            new += count if coded else 0
            progress.advance(count)

        coded = code_data_set(model, job, shard_file, world, done, arguments.force)
        seconds = time.perf_counter() - start
        new = sum(world.gather(new))
    finally:
        world.leave()
    if coded is None:
        return 0
    for name, reason in coded.bad:
        progress.skip(name, DataError(reason))
    code = progress.finish()
    shard, rate = coded.shard, new / max(seconds, 1e-9)
    if array and shard is not None:
        write_array(target, shard)
        shard_file.unlink()
    payload = payload_size(model.config.tokens_of(size), bits or model.config.bits_per_token)
    if arguments.json:
        made: dict[str, Any] = {"shard": None, "images": 0, "labels": False, "classes": None}
        if shard is not None:
            made = {"shard": str(target), "images": len(shard.names), "labels": shard.labels is not None}
            made |= {"classes": shard.classes}
        result = _result(arguments, model.fingerprint(), size, payload) | made
        print_json(result | {"images_per_s": rate, "bad": progress.bad})
    elif shard is not None:
        _say(target, shard, payload, new, rate)
    return code


def _coder(arguments: argparse.Namespace) -> tuple[FlowMo | PeerTokenizer, tuple[int, int], int | None]:
    """Return the tokenizer, (height, width) of its images, and the bits of a token that are kept, None for all."""
    if arguments.peer:
        size = (arguments.peer_size, arguments.peer_size)
        return open_peer_of(arguments.peer, size, arguments.device), size, None
    model = models.made_ready(models.load_model(arguments, tokens=True), arguments)
    size = models.coded_size(arguments, model.config)
    return model, size, rates.bits_per_token(arguments, model.config, size)


def _say(target: Path, shard: Shard, payload: int, new: int, rate: float) -> None:
    print(
        f"{len(shard.names):,} pictures, {payload} bytes of tokens each, {target.stat().st_size:,} bytes in {target}; "
        f"{new:,} coded now, {rate:,.1f} images/s"
    )
    if shard.labels is None:
        print("without labels, which a generator needs: --labels for class folders, or --label-file")
    else:
        named = [f"{i} {name}" for i, name in enumerate(shard.classes or [])][:5]
        more = " ..." if len(shard.classes or []) > len(named) else ""
        print(f"labels of {len(shard.labels.unique())} classes" + (": " + ", ".join(named) if named else "") + more)


def _to_files(arguments: argparse.Namespace) -> int:
    paths = find_pictures(arguments.pictures)
    names = relative_names(arguments.pictures, paths)
    out: Path = arguments.out or Path(common.OUT)
    targets = [out / f"{stem}.flowmo" for stem in output_stems(names, [".flowmo"])]
    check_targets(targets, paths, arguments.force)
    model = models.made_ready(models.load_model(arguments, tokens=True), arguments)
    size, fingerprint = models.own_size(arguments, model.config), model.fingerprint()
    fit, multiple = arguments.fit if size else "whole", patch_of(model.config)

    progress = Progress(len(paths))
    written: list[dict[str, Any]] = []
    payload = total = 0
    for batch in picture_batches(paths, size, arguments.fit, arguments.batch_size, progress.skip, multiple=multiple):
        try:
            bits = rates.bits_per_token(arguments, model.config, (batch.images.shape[2], batch.images.shape[3]))
        except ConfigError as error:
            if size is not None:
                raise
            for index in batch.indices:  # too small for the bytes that were asked for
                progress.skip(paths[index], error)
            continue
        tokens = model.tokenize(batch.images, bits, size="original")
        payload = payload_size(tokens.num_tokens, tokens.bits_per_token)
        for i, index in enumerate(batch.indices):
            try:
                file = TokenFile(tokens[i], fingerprint, fit, batch.original_sizes[i])
            except ConfigError as error:  # larger than the format can say
                progress.skip(paths[index], error)
                continue
            write_file(targets[index], file)
            written.append({"file": str(paths[index]), "output": str(targets[index]), "payload_bytes": payload})
            total += targets[index].stat().st_size
            progress.advance()
    code = progress.finish()
    if arguments.json:
        print_json(
            _result(arguments, fingerprint, size, payload)
            | {"file_bytes": HEADER_SIZE + payload, "pictures": written, "bad": progress.bad}
        )
    elif written:
        print(
            f"{pictures_in_words(len(written))}, "
            + (f"{HEADER_SIZE} + {payload} bytes each, " if size else "")
            + f"{total:,} bytes together, in {out}"
        )
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
