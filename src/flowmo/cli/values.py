"""Values of flags: whole numbers, sizes, seeds, each with a message that says what to write instead."""

from __future__ import annotations

import argparse
import math
import re

ORIGINAL = "original"  # a size: that of each picture


def positive(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def steps(text: str) -> int:
    if positive(text) > 10_000:
        raise argparse.ArgumentTypeError(f"{text} steps would take forever and gain nothing; at most 10000")
    return int(text)


def seed(text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0 (and at most 18 digits)")
    return int(text)


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


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
