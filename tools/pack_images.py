"""Pack pictures into plain tars of limited size, for machines that are reached by small transfers only.

    python tools/pack_images.py DATA OUT --split train [--piece-mb 30] [--size 256] [--quality 80] [--limit N]

Writes OUT/<split>-000.tar, OUT/<split>-001.tar, ... which ``flowmo train`` reads as WebDataset shards without pyarrow.
The order is random, so that the first pieces alone are a fair sample of all. Pictures whose shorter side is not SIZE,
or that are not square, are scaled and cropped to their centre and stored as WebP; what Parquet files hold at that size
already keeps its bytes. Broken pictures are named and left out. The same command again writes the same files.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from flowmo.data import ImageSource, ParquetSource, fit_image, open_split
from flowmo.errors import FlowMoError, ImageError
from flowmo.files import replacing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="any data that flowmo train takes")
    parser.add_argument("out", type=Path, help="folder of the tars")
    parser.add_argument("--split", default="train", help="first part of the tars' names, and the split where there are")
    parser.add_argument("--piece-mb", type=float, default=30, help="largest size of a tar, in MB (default: 30)")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures (default: 256)")
    parser.add_argument("--quality", type=int, default=80, help="of WebP, for pictures that are stored anew")
    parser.add_argument("--limit", type=int, help="so many pictures, a random choice")
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    arguments = parser.parse_args()
    try:
        source = open_split(arguments.data, None, arguments.split)[0]
        order = np.random.default_rng(arguments.seed).permutation(len(source))[: arguments.limit]
        members = _members(source, order, arguments.size, arguments.quality)
        paths = write(members, arguments.out, arguments.split, round(1e6 * arguments.piece_mb))
    except FlowMoError as error:
        print(error, file=sys.stderr)
        return 2
    for path in paths:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    return 0


def write(members: Iterator[tuple[str, bytes]], folder: Path, split: str, most_bytes: int) -> list[Path]:
    """Tars of at most ``most_bytes``, but for pictures that are larger; others of that split in the folder go."""
    written: list[Path] = []
    waiting = next(members, None)
    while waiting:
        path = folder / f"{split}-{len(written):03d}.tar"
        size = tarfile.RECORDSIZE  # a tar is filled up to a multiple of it
        with replacing(path) as part, tarfile.TarFile(part, "w", format=tarfile.USTAR_FORMAT) as tar:
            while waiting:
                name, data = waiting
                info = tarfile.TarInfo(name)
                info.size = len(data)
                size += tarfile.BLOCKSIZE * (1 + -(-len(data) // tarfile.BLOCKSIZE))
                if size > most_bytes and tar.offset:
                    break
                tar.addfile(info, io.BytesIO(data))
                waiting = next(members, None)
        written.append(path)
    for old in set(folder.glob(f"{split}-[0-9][0-9][0-9].tar")) - set(written):
        old.unlink()
    return written


def _members(source: ImageSource, order: np.ndarray, size: int, quality: int) -> Iterator[tuple[str, bytes]]:
    for number, index in enumerate(map(int, order)):
        try:
            image = source[index]
        except ImageError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        if isinstance(source, ParquetSource) and image.size == (size, size):
            data = source.encoded(index)
        else:
            buffer = io.BytesIO()
            fit_image(image, size, size).save(buffer, "WEBP", quality=quality, method=6)
            data = buffer.getvalue()
        with Image.open(io.BytesIO(data)) as stored:
            suffix = str(stored.format).lower()
        yield f"{number:08d}.{suffix}", data


if __name__ == "__main__":
    sys.exit(main())
