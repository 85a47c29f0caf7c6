"""Values of flags: whole numbers, sizes, seeds, each with a message that says what to write instead."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

from ...errors import ConfigError
from ...files import check_folder_name

ORIGINAL = "original"  # as in image_utils/convert.py, which takes long to import


def positive(text: str) -> int:
    number = _whole(text)
    if number is None or not 1 <= number < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def steps(text: str) -> int:
    number = positive(text)
    if number > 10_000:
        raise argparse.ArgumentTypeError(f"{text} steps are too many; give at most 10000")
    return number


def seed(text: str) -> int:
    number = _whole(text)
    if number is None or number >= 10**18:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0 (and at most 18 digits)")
    return number


def finite(text: str) -> float:
    value = _number(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def rho(text: str) -> float:
    value = _number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 (inf is one step)")
    return value


def size(text: str) -> tuple[int, int] | str:
    if text == ORIGINAL:
        return text
    match = re.fullmatch(r"(\d{1,5})(?:[xX](\d{1,5}))?", text)
    if not match or 0 in (int(match[1]), int(match[2] or match[1])):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write 256, or, height first, 256x384, or original")
    return int(match[1]), int(match[2] or match[1])


def folder(text: str) -> Path:
    """Return the folder for results. Raises an error for the name of a file, of which a folder would be made."""
    try:
        check_folder_name(Path(text))
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def _whole(text: str) -> int | None:
    """Return a whole number as people write it, 1_000 and 1e6 too; None for anything else."""
    if re.fullmatch(r"\d+(_\d+)*", text) and len(text) <= 30:
        return int(text)
    match = re.fullmatch(r"(\d{1,9})e\+?(\d{1,2})", text, re.IGNORECASE)
    return int(match[1]) * 10 ** int(match[2]) if match else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
