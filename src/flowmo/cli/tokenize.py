"""``flowmo tokenize``: codes pictures with the model's encoder. Each becomes a .flowmo file of a 24-byte header and its
packed tokens, or all go into one shard. 'flowmo detokenize' paints them again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ..codec import HEADER_SIZE, Shard, TokenFile, write_file, write_shard
from ..data import class_labels, find_pictures, output_stems, picture_batches, relative_names
from ..errors import ConfigError
from ..quantize.tokens import Tokens
from . import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_picture_arguments(parser)
    common.add_output_arguments(parser, out=None)
    parser.add_argument("--shard", type=Path, metavar="FILE", help="write all into this one .safetensors shard instead")
    parser.add_argument(
        "--labels", action="store_true", help="number the sub-folders as classes and store the labels in the shard"
    )
    common.add_run_arguments(parser)
    common.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    shard_file: Path | None = arguments.shard
    if shard_file is None and arguments.labels:
        raise ConfigError("--labels are stored in a shard only; give --shard FILE.safetensors too")
    if shard_file is not None and arguments.out is not None:
        raise ConfigError("give either --shard FILE or --out DIR")
    if shard_file is not None and shard_file.suffix != ".safetensors":
        raise ConfigError(f"--shard {shard_file}: the name of a shard ends in .safetensors")
    paths = find_pictures(arguments.pictures)
    names = relative_names(arguments.pictures, paths)
    labels, classes = class_labels(names) if arguments.labels else (None, None)
    out: Path = arguments.out or Path(common.OUT)
    targets = [out / f"{stem}.flowmo" for stem in output_stems(names, [".flowmo"])]
    common.check_targets(targets if shard_file is None else [shard_file], paths, arguments.force)
    model = common.load_model(arguments)
    size, fingerprint = common.coded_size(arguments, model.config), model.fingerprint()

    progress = common.Progress(len(paths))
    kept: list[int] = []
    original_sizes: list[tuple[int, int]] = []
    columns: list[torch.Tensor] = []
    written: list[dict[str, Any]] = []
    payload = 0
    for batch in picture_batches(paths, size, arguments.fit, arguments.batch_size, progress.skip):
        tokens = model.tokenize(batch.images)
        payload = -(-tokens.bits_per_image // 8)
        for i, index in enumerate(batch.indices):
            try:
                file = TokenFile(tokens[i], fingerprint, arguments.fit, batch.original_sizes[i])
            except ConfigError as error:  # larger than the format can say
                progress.skip(paths[index], error)
                continue
            if shard_file is None:
                write_file(targets[index], file)
                written.append({"file": str(paths[index]), "output": str(targets[index])})
            else:
                columns.append(tokens.indices[i].to(torch.int32))
                written.append({"file": str(paths[index]), "name": names[index].as_posix()})
                original_sizes.append(batch.original_sizes[i])
            kept.append(index)
            progress.advance()
    code = progress.finish()
    config = model.config
    if shard_file is not None and kept:
        shard = Shard(
            Tokens(torch.stack(columns), config.bits_per_group, size),
            [names[index].as_posix() for index in kept],
            None if labels is None else torch.tensor([labels[index] for index in kept]),
            fingerprint,
            arguments.fit,
            torch.tensor(original_sizes),
        )
        write_shard(shard_file, shard)
    result = {
        "model": arguments.model,
        "fingerprint": f"{fingerprint:08x}",
        "image_size": list(size),
        "fit": arguments.fit,
        "payload_bytes": payload,
        "file_bytes": HEADER_SIZE + payload if shard_file is None else None,
        "pictures": written,
        "bad": progress.bad,
    }
    if shard_file is not None:
        result |= {"shard": str(shard_file) if kept else None, "classes": classes}
    if arguments.json:
        common.print_json(result)
    elif kept and shard_file is None:
        print(
            f"{len(kept)} picture{'s' * (len(kept) != 1)}, {HEADER_SIZE} + {payload} bytes each, "
            f"{len(kept) * (HEADER_SIZE + payload):,} bytes together, in {out}"
        )
    elif shard_file is not None and kept:
        print(
            f"{len(kept)} pictures, {payload} bytes of tokens each, {shard_file.stat().st_size:,} bytes in {shard_file}"
        )
        if classes is not None:
            print(f"{len(classes)} classes: " + ", ".join(f"{i} {name}" for i, name in enumerate(classes[:20])))
    return code
