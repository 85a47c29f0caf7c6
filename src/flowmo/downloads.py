"""Fetching a file by its address, with its size said first and a bar that shows the progress.

Only a whole file gets its name.
The other party is not trusted: no more is written than was announced, and a checksum is compared where one is known.
"""

from __future__ import annotations

import hashlib
import http.client
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from .errors import WeightsError
from .files import replacing

BLOCK = 1 << 20
TIMEOUT = 60  # seconds without a byte


def fetch(address: str, target: Path, *, size: int | None = None, sha256: str | None = None, title: str = "") -> Path:
    """Fetch ``address`` to ``target`` and return it; the file appears there only once it is whole and verified.

    size: bytes that it must have, where they are known; the server's word counts otherwise.
    sha256: of its bytes, whole or its first digits, in hexadecimal.
    title: what it is, for messages.
    Raises WeightsError for an address that does not answer, and for a file of another size or checksum.
    """
    title = title or target.name
    digest, received = hashlib.sha256(), 0
    try:
        with replacing(target) as temporary, urllib.request.urlopen(address, timeout=TIMEOUT) as response:
            announced = response.headers.get("Content-Length")
            expected = size if size is not None else int(announced) if announced else None
            _say(f"fetching {title} ({readable(expected)}) from {urlsplit(address).netloc} to {target}")
            with temporary.open("wb") as out, _Bar(expected) as bar:
                # One byte beyond the known size shows a wrong file; an endless one must not fill the disk.
                while (expected is None or received <= expected) and (block := response.read(BLOCK)):
                    out.write(block)
                    digest.update(block)
                    received += len(block)
                    bar.advance(len(block))
            if sha256 is not None and not digest.hexdigest().startswith(sha256):
                raise WeightsError(
                    f"{address} is damaged or another file: its SHA-256 is {digest.hexdigest()[:16]}..., not "
                    f"{sha256[:16]}...; nothing was kept. Try again, or fetch it from elsewhere"
                )
            if expected is not None and received != expected:
                raise WeightsError(
                    f"{address} gave {received:,} bytes where {expected:,} were expected; nothing was kept. Try again"
                )
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise WeightsError(f"could not fetch {address} to {target.parent}: {error}") from None
    return target


def readable(size: int | None) -> str:
    """Return a number of bytes as a person writes it: ``553 MB``, ``7.56 GB``; ``unknown size`` for None."""
    if size is None:
        return "unknown size"
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= one:
            return f"{size / one:.3g} {unit}"
    return f"{size} bytes"


class _Bar:
    """A bar on stderr where that is a terminal, nothing elsewhere."""

    def __init__(self, total: int | None) -> None:
        self.bar = None
        if sys.stderr.isatty():
            import tqdm

            self.bar = tqdm.tqdm(total=total, unit="B", unit_scale=True, leave=False)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self, count: int) -> None:
        if self.bar is not None:
            self.bar.update(count)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
