"""Colour spaces that files name by numbers instead of a profile: the ICC profile that says the same."""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""x and y of white, red, green and blue."""

SRGB_CURVE = 0.0
"""Stands for sRGB's curve where a curve is an exponent otherwise."""

_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
SRGB_POINTS: Chromaticities = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
DISPLAY_P3: Chromaticities = (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
ADOBE_RGB: Chromaticities = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
ADOBE_GAMMA = 563 / 256

_NTSC: Chromaticities = (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
_PRIMARIES: dict[int, Chromaticities] = {
    1: SRGB_POINTS,
    2: SRGB_POINTS,  # not said
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: _NTSC,
    7: _NTSC,
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: DISPLAY_P3,
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_CURVES = {2: SRGB_CURVE, 4: 2.2, 5: 2.8, 8: 1.0, 13: SRGB_CURVE} | dict.fromkeys((1, 6, 14, 15), SRGB_CURVE)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])
_NEAR = 0.002  # chromaticities that are sRGB's but for rounding
_LEAST, _MOST = 0.2, 5.0  # exponents that an image may have


def coded_profile(primaries: int, curve: int, grey: bool) -> bytes:
    """Return the profile of a colour space by its code points (ITU-T H.273), as PNG's cICP and AVIF have them.

    It is empty for sRGB. Video's curves (1, 6, 14, 15) are taken as sRGB's, as which they are displayed.

    Raises ValueError for what is not plainly converted, such as high dynamic range.
    """
    if curve in (16, 18):
        raise ValueError(f"{'PQ' if curve == 16 else 'HLG'}, high dynamic range")
    if primaries not in _PRIMARIES or curve not in _CURVES:
        raise ValueError(f"primaries {primaries}, curve {curve}")
    return profile(SRGB_POINTS if grey else _PRIMARIES[primaries], _CURVES[curve])


@lru_cache(maxsize=64)
def profile(chromaticities: Chromaticities, curve: float) -> bytes:
    """Return the ICC profile, of RGB, of white and primaries and a curve.

    The curve is the exponent by which light follows from a value in 0 ... 1. The profile is empty for sRGB, where
    nothing is to be converted. Grey is converted as RGB too: a profile of grey would be applied too coarsely.

    Raises ValueError for numbers that are no colour space.
    """
    if curve != SRGB_CURVE and not _LEAST <= curve <= _MOST:
        raise ValueError(f"an exponent of {curve:.3g}")
    if curve == SRGB_CURVE and np.abs(np.subtract(chromaticities, SRGB_POINTS)).max() < _NEAR:
        return b""
    curves = _curve(curve)
    colours = {name: _xyz(xyz) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), _to_d50(chromaticities), strict=True)}
    return _written({b"wtpt": _xyz(_D50)} | colours | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curves))


def _to_d50(chromaticities: Chromaticities) -> np.ndarray:
    """Return XYZ of red, green and blue, a row each, seen under D50."""
    x, y = np.array(chromaticities, float).reshape(4, 2).T
    if not (np.isfinite([x, y]).all() and y[0] > 0):
        raise ValueError("primaries that are no colours")
    white = np.array([x[0], y[0], 1 - x[0] - y[0]]) / y[0]
    primaries = np.stack([x[1:], y[1:], 1 - x[1:] - y[1:]])
    if abs(np.linalg.det(primaries)) < 1e-3:
        raise ValueError("primaries that are one colour")
    matrix = primaries * np.linalg.solve(primaries, white)
    seen, wanted = _BRADFORD @ white, _BRADFORD @ _D50
    if min(seen) <= 0:
        raise ValueError("a white that is none")
    rows: np.ndarray = (np.linalg.inv(_BRADFORD) @ np.diag(wanted / seen) @ _BRADFORD @ matrix).T
    if np.abs(rows).max() > 16:
        raise ValueError("primaries that are no colours")
    return rows


def _curve(exponent: float) -> bytes:
    """Return a parametric curve of ICC: a plain power, or sRGB's (a power with a straight foot)."""
    numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045) if exponent == SRGB_CURVE else (exponent,)
    return b"para\0\0\0\0" + struct.pack(">HH", 3 if len(numbers) > 1 else 0, 0) + _fixed(numbers)


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _fixed(values: np.ndarray | tuple[float, ...]) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _written(tags: dict[bytes, bytes]) -> bytes:
    """Return a display profile of ICC 4.3."""
    place = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", place + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", place + len(body), b"\0\0\0\0", 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    return header + bytes(12) + b"acsp" + bytes(28) + _fixed(_D50) + bytes(48) + table + body
