"""Colour profiles (ICC) that images carry: their colours converted to sRGB, in which the model was trained."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from .notes import note

_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "LAB": "LAB"}
_MOST_BYTES = 2**22


def srgb_transform(profile: Any, mode: str, name: str) -> Any:
    """Return the conversion of pixels of a mode (RGB, L, CMYK or LAB) from an embedded profile to sRGB.

    Pillow's ImageCms applies it; None where there is nothing to convert.

    A profile that is broken, of another mode or beyond 4 MiB is left out with a note about ``name``.
    """
    if not profile or not isinstance(profile, bytes):
        return None
    if len(profile) > _MOST_BYTES:
        note(name, "its colour profile is too large and was ignored")
        return None
    transform, problem = _transform(profile, mode)
    if problem:
        note(name, f"its colour profile was ignored ({problem})")
    return transform


@lru_cache(maxsize=16)
def lab_transform() -> Any:
    """Return the conversion from CIELAB with Pillow's white point to sRGB."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB")


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> tuple[Any, str]:
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space.strip()
        if _MODES.get(space.upper()) != mode:
            return None, f"it describes {space}, the image is {mode}"
        transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
        probe = _probe(mode)
        there = np.asarray(transform.apply(probe)).astype(int)
    except Exception as error:  # ImageCms raises OSError, TypeError, ValueError and its own PyCMSError.
        return None, str(error) or type(error).__name__
    # sRGB by any name: within rounding the colours stay, so the pixels do
    same = mode in ("RGB", "L") and np.abs(there - np.asarray(probe.convert("RGB"))).max() <= 1
    return (None if same else transform), ""


def _probe(mode: str) -> Image.Image:
    """Return an image of colours all over a mode's range."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    values = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(values, values, values, indexing="ij"), -1).reshape(27, 27, 3)
    image = Image.fromarray(grid)
    return image if mode == "RGB" else image.convert("CMYK") if mode == "CMYK" else Image.new("LAB", (1, 1))
