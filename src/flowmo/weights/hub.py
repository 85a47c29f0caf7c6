"""Models by name: the released checkpoints and anybody's models on the Hugging Face hub, and files by their address.

What is fetched is read as any file is: nothing in it is executed.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import torch

from ..downloads import fetch
from ..errors import WeightsError
from ..files import cache_folder
from ..hub import SUFFIXES, WEIGHTS, fetch_from_hub, is_address, repository_of
from ..tokenizer import FlowMo
from .native import load_model, save_model
from .official import load_official

RELEASED = {
    "flowmo-lo": ("ksarge/FlowMo", "flowmo_lo.pth"),
    "flowmo-hi": ("ksarge/FlowMo", "flowmo_hi.pth"),
}
"""Names of the authors' checkpoints: where they are on the hub."""


def is_remote(name: str | Path) -> bool:
    """Return whether ``name`` is a released checkpoint, an address, or ``owner/name`` that is no path here."""
    text = str(name)
    return text in RELEASED or (isinstance(name, str) and (is_address(text) or repository_of(text) is not None))


def remote_path(name: str, revision: str | None = None) -> Path:
    """Return where the file of a model lies here that :func:`is_remote` recognises.

    It is fetched unless it is in a cache.

    revision: a branch, tag or commit of a hub repository. Raises WeightsError where it is neither cached nor reachable,
    with the ways out.
    """
    if name in RELEASED:
        return fetch_from_hub(*RELEASED[name], revision)
    repository = repository_of(name)
    return fetch_from_hub(repository, WEIGHTS, revision) if repository is not None else fetch_address(name)


def fetch_address(address: str) -> Path:
    """Fetch a file of weights by its address into the cache (FLOWMO_CACHE), unless it is there. Raises WeightsError."""
    name = PurePosixPath(unquote(urlsplit(address).path)).name
    if not name.endswith(SUFFIXES):
        raise WeightsError(
            f"{address} does not end in the name of a file of weights ({', '.join(SUFFIXES)}); give the address of the "
            "file itself, or owner/name of a model on the Hugging Face hub"
        )
    target = cache_folder() / "addresses" / sha256(address.encode()).hexdigest()[:16] / name
    return target if target.is_file() else fetch(address, target)


def load_converted(path: Path, ema: bool = True, **released: Any) -> FlowMo:
    """Load a released checkpoint from a ``.safetensors`` file beside it, which is written at the first time.

    Raw weights, and other settings than the published, are read from the checkpoint itself. Raises WeightsError.
    """
    if not ema or any(value not in (None, 256) for value in released.values()):
        return load_official(path, ema, **released)
    converted = path.with_suffix(".safetensors")
    if converted.is_file():
        try:
            return load_model(converted)
        except WeightsError:  # damaged, or of an earlier version: made anew
            converted.unlink(missing_ok=True)
    model = load_official(path, ema, **released)
    try:
        save_model(model, converted, torch.float32, {"converted_from": path.name})
        _say(f"converted once to {converted}, which is read from now on")
    except OSError as error:  # a cache that others own, or a full disk
        _say(f"not converted to safetensors ({error}); {path} will be read again next time")
    return model


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
