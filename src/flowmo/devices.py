"""Which device ``auto`` is, the first of cuda, mps, xpu and cpu there; models on one, and the memory they took."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from .errors import ConfigError

Module = TypeVar("Module", bound=nn.Module)
AUTO = "auto"
ORDER = ("cuda", "mps", "xpu")


def resolve_device(name: str | torch.device) -> str:
    """Return the name of a device: of the best one here for ``auto``, else ``name`` as it is."""
    return best_device() if str(name) == AUTO else str(name)


def best_device() -> str:
    """Return the first of cuda, mps and xpu that torch can use here, else cpu."""
    return next((name for name in ORDER if getattr(torch, name).is_available()), "cpu")


def usable_device(name: str) -> torch.device:
    """Return the device of a name, on which tensors can be put. Raises ConfigError for another."""
    try:
        device = torch.device(resolve_device(name))
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        raise ConfigError(f"--device {name} cannot be used here ({_first_line(error)}); try --device cpu") from None
    return device


def put_on(model: Module, device: str | torch.device | None, dtype: torch.dtype | None = None) -> Module:
    """Move a model to a device, ``auto`` too, and to a type of weights, in place, and return it.

    None leaves either as it is. Raises ConfigError for a device that is not there.
    """
    try:
        return model.to(None if device is None else resolve_device(device), dtype)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f'the model cannot be put on {device} ({_first_line(error)}); try device="cpu", or "auto" for the best '
            "there is"
        ) from None


@contextlib.contextmanager
def tf32_products(on: bool) -> Iterator[None]:
    """Let GPUs take products and convolutions of float32 in TF32 within, and put back afterwards what was there (A17).

    Off, it changes nothing. TF32 has the range of float32 and the 10 bits of mantissa of float16.
    """
    if not on:
        yield
        return
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def peak_memory_mb(device: torch.device) -> float | None:
    """Return the largest memory so far in MiB; None where the system does not tell.

    It is that of tensors since the last reset on a GPU, else of the process since its start.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB elsewhere


def resident_memory(field: str, restart: bool = False) -> int | None:
    """Return the bytes of this process in main memory; None where the system does not tell.

    field: "VmRSS" for now, "VmHWM" for the most since ``restart`` was last asked for.
    """
    try:
        if restart:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024
    except (OSError, ValueError, StopIteration):
        return None


def available_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on the device; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:90]
