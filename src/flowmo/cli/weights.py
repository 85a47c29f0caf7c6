"""``flowmo weights``: lists the files of other people's networks that training and metrics use.

It says where each lies here, and the command that brings it. With names it fetches them from their publishers into the
cache, each known by its checksum.
"""

from __future__ import annotations

import argparse

from ..downloads import readable
from ..metrics.weight_files import SOURCES, describe_source, fetch_source, source_of
from .arguments.common import add_json_argument
from .printing import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="FILE", help="files to fetch, by the names that the list has")
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    chosen = [source_of(name) for name in arguments.names]
    for source in chosen:
        fetch_source(source)
    rows = [describe_source(source) for source in chosen or SOURCES.values()]
    if arguments.json:
        print_json(rows)
        return 0
    for row in rows:
        print(f"{row['file']} ({readable(row['bytes'])}): {row['what']}")
        print(f"    {row['path'] or 'not here; get it with: ' + row['command']}")
    return 0
