"""Decode the pictures of a data set once, into arrays that training reads as fast as memory.

    python tools/decode_images.py DATA OUT [--size 256]

Writes OUT/train.npy and, where DATA has that split, OUT/validation.npy: uint8 of shape (n, SIZE, SIZE, 3), pictures
scaled and cropped to their centre where they are larger. DATA is anything that ``flowmo train`` takes. Broken pictures
are named and left out.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from flowmo.data import ImageSource, SplitError, fit_image, open_images, open_split
from flowmo.errors import FlowMoError, ImageError
from flowmo.files import replacing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="any data that flowmo train takes")
    parser.add_argument("out", type=Path, help="folder of the arrays")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures (default: 256)")
    arguments = parser.parse_args()
    try:
        decode(open_split(arguments.data, None, "train")[0], arguments.out / "train.npy", arguments.size)
        try:
            validation = open_images(arguments.data, split="validation")
        except SplitError:
            return 0
        decode(validation, arguments.out / "validation.npy", arguments.size)
    except FlowMoError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def decode(source: ImageSource, path: Path, size: int) -> None:
    """In threads: Pillow decodes without Python's lock."""

    def pixels(index: int) -> np.ndarray | ImageError:
        try:
            return np.asarray(fit_image(source[index], size, size))
        except ImageError as error:
            return error

    with replacing(path) as part:
        array = np.lib.format.open_memmap(part, "w+", np.uint8, (len(source), size, size, 3))
        count = 0
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(source), 1024):  # a thousand of them in memory
                for found in pool.map(pixels, range(start, min(start + 1024, len(source)))):
                    if isinstance(found, ImageError):
                        print(f"left out: {found}", file=sys.stderr)
                    else:
                        array[count] = found
                        count += 1
        if count < len(source):
            good = np.array(array[:count])
            with part.open("wb") as file:
                np.save(file, good)
    print(f"{path}: {count} pictures of {source.describe()}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
