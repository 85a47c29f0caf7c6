"""Which device ``auto`` is, the first of cuda, mps, xpu and cpu that is there; how much memory one took."""

from __future__ import annotations

import sys

import torch

AUTO = "auto"
ORDER = ("cuda", "mps", "xpu")


def resolve_device(name: str | torch.device) -> str:
    """Return the name of a device: of the best one here for ``auto``, else ``name`` as it is."""
    return best_device() if str(name) == AUTO else str(name)


def best_device() -> str:
    """Return the first of cuda, mps and xpu that torch can use here, else cpu."""
    return next((name for name in ORDER if getattr(torch, name).is_available()), "cpu")


def peak_memory_mb(device: torch.device) -> float | None:
    """Return the largest memory so far in MiB: on a GPU of tensors since the last reset, else of the process since
    its start; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB elsewhere
