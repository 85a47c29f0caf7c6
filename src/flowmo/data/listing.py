"""Everything in a folder, through links too: the files that are wanted, and by name what cannot be looked into."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..image_utils.decode import IMAGE_SUFFIXES

TAR, PARQUET = ".tar", ".parquet"
CONTAINERS = (TAR, PARQUET)
"""Suffixes of files of many images; they count in any case, as those of images do."""
COMPRESSED_TAR = re.compile(r"\.(tgz|tbz2?|txz|tzst|tar\.(gz|bz2|xz|zstd?|lz4|lzma|lz|z|br))$", re.IGNORECASE)
_MOST_ENTRIES_BY_LINK = 16
_MOST_LEVELS = 900  # below what Python's stack bears, beyond what file systems give a name


@dataclass
class Listing:
    """The files that were found in a folder, and the folders that could not be searched."""

    names: list[str] = field(default_factory=list)  # of files, as paths from the folder with slashes, sorted by parts
    # Names of folders that could not be searched, with the reason; nobody knows what is in them.
    left_out: dict[str, str] = field(default_factory=dict)


def list_files(folder: Path, wanted: Callable[[str], bool]) -> Listing:
    """Return every entry below a folder whose name is ``wanted``; hidden entries and folders are left out.

    It may be a file, a pipe or a broken link, which fail when they are read and are counted then.

    Links to folders are followed, but not to a folder that they lie in, and to one and the same at most 16 times.
    """
    found: list[tuple[str, ...]] = []
    listing = Listing()
    entries_by_link: Counter[tuple[int, int]] = Counter()

    def search(path: str, inside: tuple[str, ...], above: frozenset[tuple[int, int]]) -> None:
        try:
            status = os.stat(path)
            here = (status.st_dev, status.st_ino)
            if here in above:  # a link back up: what it leads to is being searched
                return
            if inside and os.path.islink(path):
                entries_by_link[here] += 1
                if entries_by_link[here] > _MOST_ENTRIES_BY_LINK:
                    listing.left_out["/".join(inside)] = "is a link to a folder that was searched many times already"
                    return
            if len(inside) > _MOST_LEVELS:
                raise OSError(0, "too many folders in folders")
            with os.scandir(path) as entries:
                children = [(entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            listing.left_out["/".join(inside)] = error.strerror or str(error)
            return
        for name, is_folder in sorted(children):
            if is_folder:
                search(os.path.join(path, name), (*inside, name), above | {here})
            elif wanted(name):
                found.append((*inside, name))

    search(os.fspath(folder), (), frozenset())
    listing.names = ["/".join(parts) for parts in sorted(found)]
    return listing


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def is_image_name(name: str) -> bool:
    """Return whether a name has the suffix of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def is_container_name(name: str) -> bool:
    """Return whether a name is that of a file of many images, compressed tars too, which cannot be read."""
    return os.path.splitext(name)[1].lower() in CONTAINERS or COMPRESSED_TAR.search(name) is not None


def is_data_name(name: str) -> bool:
    """Return whether a name is that of an image or of a file of many."""
    return is_image_name(name) or is_container_name(name)
