"""The straight path between image and noise (Section 3.2, Eq. 4-6). The only file that knows x_t."""

from __future__ import annotations

from torch import Tensor


def _level(t: Tensor, like: Tensor) -> Tensor:
    """Return noise levels (B,) or () so that they broadcast over images B ... with their type."""
    return t.to(like.dtype).reshape(t.shape + (1,) * (like.ndim - t.ndim)) if t.ndim else t.to(like.dtype)


def interpolate(x: Tensor, z: Tensor, t: Tensor) -> Tensor:
    """Return x_t = t z + (1 - t) x (Eq. 4). x, z: B ...; t in [0, 1], (B,) or ()."""
    t = _level(t, x)
    return t * z + (1 - t) * x


def velocity_target(x: Tensor, z: Tensor) -> Tensor:
    """Return v = dx_t / dt = z - x, with the sign that the paper's Eq. 10 and 13 integrate (A4)."""
    return z - x


def image_estimate(x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """Return x_t - t v, the image that one straight step from x_t reaches (Eq. 6 with the sign of A4)."""
    return x_t - _level(t, x_t) * velocity


def velocity_from_estimate(x_t: Tensor, estimate: Tensor, t: Tensor, smallest_t: float = 0.0) -> Tensor:
    """Return the velocity of an image estimate, the inverse of :func:`image_estimate`.

    t is held above ``smallest_t`` in the division.
    """
    return (x_t - estimate) / _level(t.clamp_min(smallest_t), x_t)
