"""Which device ``auto`` is: the first of cuda, mps, xpu and cpu that is there."""

from __future__ import annotations

import torch

AUTO = "auto"
ORDER = ("cuda", "mps", "xpu")


def resolve_device(name: str | torch.device) -> str:
    """Return the name of a device: of the best one here for ``auto``, else ``name`` as it is."""
    return best_device() if str(name) == AUTO else str(name)


def best_device() -> str:
    """Return the first of cuda, mps and xpu that torch can use here, else cpu."""
    return next((name for name in ORDER if getattr(torch, name).is_available()), "cpu")
