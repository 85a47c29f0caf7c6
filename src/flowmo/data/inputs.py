"""What the commands take: files, folders and patterns as the user typed them, each opened as an upright RGB picture."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import ImageError
from ..files import real_path, user_path
from ..image_utils.decode import IMAGE_SUFFIXES, decode
from .sources import image_files


@dataclass(frozen=True)
class NamedImage:
    """A picture of the user's, upright, with its name."""

    image: Image.Image  # RGB, upright
    original_size: tuple[int, int]  # (height, width) as seen, in pixels
    name: str  # the file's, with its suffix


def open_image(path: str | Path) -> NamedImage:
    """Read one picture of any common kind (see :func:`decode`). Raises ImageError naming the path and the reason."""
    path = user_path(path)
    image = decode(path, str(path))
    return NamedImage(image, (image.height, image.width), path.name)


class ImageList:
    """Picture files as a data set (see ``ImageSource``). names, labels: one a file; labels may be None."""

    def __init__(self, paths: Sequence[Path], names: Sequence[str], labels: Sequence[int] | None = None) -> None:
        self.paths, self.names, self.labels = list(paths), list(names), labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        return open_image(self.paths[index]).image

    def label(self, index: int) -> int | None:
        return None if self.labels is None else self.labels[index]

    def name(self, index: int) -> str:
        return self.names[index]

    def describe(self) -> str:
        return f"{len(self)} pictures"


def find_images(arguments: list[str]) -> list[Path]:
    """Return the picture files that arguments of a command mean, in their order, each once.

    A file is taken whatever its suffix; a folder is searched through and through for picture files; a pattern
    that the shell left alone (``photos/*.jpg``, ``**``) is matched here. Raises ImageError for an argument
    that does not exist or holds no picture.
    """
    if not arguments:
        raise ImageError("no pictures given: name files, folders or patterns such as photos/*.jpg")
    found: dict[str, Path] = {}
    for argument in arguments:
        for path in _expand(argument):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def leave_out_results(paths: list[Path], given: list[str], out: Path) -> list[Path]:
    """Return the paths without pictures in ``out``, as far as they were found by searching a folder around it.

    Raises ImageError where no others are left.
    """
    inside, named = real_path(out), {real_path(user_path(text)) for text in given}
    if any(inside == path or inside in path.parents for path in named):
        return paths
    left = [path for path in paths if inside not in real_path(path).parents]
    if not left:
        raise ImageError(f"no pictures but earlier results in {out}; name others, or give another --out")
    return left


def _expand(argument: str) -> list[Path]:
    text = os.path.expanduser(argument)
    if os.path.isdir(text):
        files = image_files(Path(text))
    elif os.path.lexists(text):  # reading a broken link fails by name
        return [Path(text)]
    elif glob.has_magic(text):
        files = []
        for match in sorted(Path(m) for m in glob.glob(text, recursive=True)):
            if match.is_dir():
                files += image_files(match)
            elif match.suffix.lower() in IMAGE_SUFFIXES:
                files.append(match)
    else:
        raise ImageError(f"{argument}: there is no such file or folder")
    if not files:
        raise ImageError(f"{argument}: no picture found; give JPEG, PNG, WebP, AVIF, GIF or TIFF files")
    return files
