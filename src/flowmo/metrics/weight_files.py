"""The files of other people's networks that training and metrics use: a list, where each lies, how to get it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from ..downloads import fetch
from ..errors import ConfigError, WeightsError
from ..files import cache_folder
from ..perceptual import classifier, resnet, torchvision, weights
from ..perceptual.sources import WeightSource, find
from . import inception, inception_port

SOURCES: dict[str, WeightSource] = {
    source.file: source
    for source in (
        *weights.SOURCES.values(),
        *torchvision.NETWORKS.values(),
        resnet.SOURCE,
        inception.SOURCE,
        inception_port.SOURCE,
        classifier.SOURCE,
    )
}


def place_of(source: WeightSource) -> Path | None:
    """Return where a file lies here; None where it is not here."""
    try:
        return find(source, fetch=False)
    except (WeightsError, importlib.metadata.PackageNotFoundError):
        return None


def source_of(name: str) -> WeightSource:
    """Return the file of that name. Raises ConfigError for one that is not listed, or that a package brings."""
    if name not in SOURCES:
        raise ConfigError(f"there is no file {name!r}; 'flowmo weights' lists {', '.join(SOURCES)}")
    source = SOURCES[name]
    if source.address is None and place_of(source) is None:
        raise ConfigError(f"{name} comes in a package: {source.how_to_get()}")
    return source


def fetch_source(source: WeightSource) -> None:
    """Fetch a file from its publisher into the cache, unless it is here. Raises WeightsError where that fails."""
    if place_of(source) is not None:
        return
    whole = len(source.sha256) == 64  # else its size is not known to the byte either
    fetch(
        str(source.address),
        cache_folder() / source.file,
        size=source.size if whole else None,
        sha256=source.sha256,
        title=f"{source.title}, {source.file}",
    )


def describe_source(source: WeightSource) -> dict[str, Any]:
    """Return what a file is, where it lies here (None: it is not here), and the command that brings it."""
    place = place_of(source)
    facts = {"file": source.file, "what": source.title, "bytes": source.size, "sha256": source.sha256}
    return facts | {"path": place and str(place), "command": source.how_to_get().strip("`")}
