"""``flowmo weights``: lists the files of other people's networks that training and metrics use, where each lies here,
and the command that brings it. With names it fetches them from their publishers into the cache, each known by its
checksum."""

from __future__ import annotations

import argparse
import importlib.metadata
from pathlib import Path
from typing import Any

from ..downloads import fetch, readable
from ..errors import ConfigError, WeightsError
from ..files import cache_folder
from ..metrics import inception, inception_port
from ..perceptual import classifier, resnet, torchvision, weights
from ..perceptual.sources import WeightSource, find
from . import common

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="FILE", help="files to fetch, by the names that the list has")
    common.add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    chosen = [_chosen(name) for name in arguments.names]
    for source in chosen:
        if _place(source) is None:
            whole = len(source.sha256) == 64  # else its size is not known to the byte either
            fetch(
                str(source.address),
                cache_folder() / source.file,
                size=source.size if whole else None,
                sha256=source.sha256,
                title=f"{source.title}, {source.file}",
            )
    rows: list[dict[str, Any]] = []
    for source in chosen or SOURCES.values():
        place = _place(source)
        facts = {"file": source.file, "what": source.title, "bytes": source.size, "sha256": source.sha256}
        rows.append(facts | {"path": place and str(place), "command": source.how_to_get().strip("`")})
    if arguments.json:
        common.print_json(rows)
        return 0
    for row in rows:
        print(f"{row['file']} ({readable(row['bytes'])}): {row['what']}")
        print(f"    {row['path'] or 'not here; get it with: ' + row['command']}")
    return 0


def _chosen(name: str) -> WeightSource:
    """Raises ConfigError for a name that the list has not, or a file that a package brings."""
    if name not in SOURCES:
        raise ConfigError(f"there is no file {name!r}; 'flowmo weights' lists {', '.join(SOURCES)}")
    source = SOURCES[name]
    if source.address is None and _place(source) is None:
        raise ConfigError(f"{name} comes in a package: {source.how_to_get()}")
    return source


def _place(source: WeightSource) -> Path | None:
    try:
        return find(source, fetch=False)
    except (WeightsError, importlib.metadata.PackageNotFoundError):
        return None
