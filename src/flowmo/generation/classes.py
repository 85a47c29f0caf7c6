"""Stage 2: classes by number, WordNet id or name, as a data set or a user writes them (Figure 6)."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError, DataError

_WNID = re.compile(r"n\d{8}")


def find_class(text: str, classes: Sequence[str], num_classes: int) -> int:
    """Return the number of the class that ``text`` means.

    ``text`` is its number, its whole name, its WordNet id, or one of the names between commas, in any case.
    Raises ConfigError for one that there is not, with the nearest, and for a name that several classes have.
    """
    if text.isdecimal():
        if int(text) < num_classes:
            return int(text)
        raise ConfigError(f"there is no class {text}; the generator knows 0 to {num_classes - 1}")
    wanted = text.strip().casefold()
    for names in (lambda c: [c], parts_of):
        found = [i for i, c in enumerate(classes) if wanted in [name.casefold() for name in names(c)]]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(f"several classes are called {text!r}: {_listed(found, classes)}; give the number")
    if not classes:
        raise ConfigError(f"the generator has no names of classes, so {text!r} means none; give 0 to {num_classes - 1}")
    raise ConfigError(f"there is no class {text!r}; {_nearest(wanted, classes)}")


def parts_of(name: str) -> list[str]:
    """Return the id and the names in a text such as ``n01443537 goldfish, Carassius auratus``."""
    first, _, rest = name.partition(" ")
    wnid, names = ([first], rest) if _WNID.fullmatch(first) else ([], name)
    return wnid + [part.strip() for part in names.split(",") if part.strip()]


def first_name(name: str) -> str:
    """Return the first name of a class for captions; the WordNet id only where there is no other."""
    parts = parts_of(name)
    return next((part for part in parts if not _WNID.fullmatch(part)), name)


def read_class_names(path: str | Path) -> list[str]:
    """Return the names of classes that a file holds, in order.

    The file is text with a name a line, or JSON: a list, a table with ``names`` and, if they are there, ``wnids``, or
    a table with ``classes``, as ``flowmo info --json`` prints it.
    Raises DataError for a file that is none of these, and for a name that stands twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no file of class names that can be read ({error})") from None
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if path.suffix == ".json":
        names = _from_json(path, text)
    if not names:
        raise DataError(f"{path}: holds no names")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: two classes are named {twice!r}; give each a name of its own, such as with its id")
    return names


def _from_json(path: Path, text: str) -> list[str]:
    try:
        data = json.loads(text)
        if isinstance(data, dict):
            names = data["classes"] if "classes" in data else data["names"]
            wnids = data.get("wnids") or [""] * len(names)
            data = [f"{wnid} {name}".strip() for wnid, name in zip(wnids, names, strict=True)]
        if not isinstance(data, list) or not all(isinstance(name, str) for name in data):
            raise ValueError("it is not a list of texts")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: a JSON list of names, or names and wnids, is needed ({error})") from None
    return data


def _nearest(wanted: str, classes: Sequence[str], count: int = 3) -> str:
    names = {name.casefold(): i for i, c in reversed(list(enumerate(classes))) for name in [c, *parts_of(c)]}
    inside = [name for name in names if wanted in name]
    near = inside + [n for n in difflib.get_close_matches(wanted, names, n=2 * count, cutoff=0.6) if n not in inside]
    numbers = list(dict.fromkeys(names[name] for name in near))[:count]
    if not numbers:
        return f"classes are numbered 0 to {len(classes) - 1}, such as {_listed([0], classes)}"
    return f"did you mean {_listed(numbers, classes)}?"


def _listed(numbers: Sequence[int], classes: Sequence[str]) -> str:
    return ", ".join(f"{i} {first_name(classes[i])!r}" for i in numbers[:5])
