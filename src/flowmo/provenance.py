"""The code, the machine and the weights that made a result, written into every checkpoint and every measured number."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from ._version import __version__
from .config import QuantizerConfig, to_dict


@functools.cache
def code_version() -> dict[str, Any]:
    """Return the package's version and, in a git checkout, the commit and whether files in src differ from it."""
    version: dict[str, Any] = {"flowmo": __version__}
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "--short", "HEAD")
        if commit:
            version |= {"commit": commit, "modified": bool(_git(root, "status", "--porcelain", "--", "src"))}
    return version


def machine(device: torch.device) -> dict[str, Any]:
    """Return the device, processor, system and versions without which measured numbers mean nothing."""
    facts: dict[str, Any] = {
        "device": str(device),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def weights_checksum(model: Any) -> str:
    """Return the SHA-256 of a model's configuration without its sampler, and of its weights by name, in float32.

    It is equal for equal functions, whichever file they were read from.
    model: a tokenizer or a generator, which has ``config`` and ``state_dict``.
    """
    config = {key: value for key, value in to_dict(model.config).items() if key != "sampler"}
    if config.get("transform", "") is None:  # of models from before there was one, whose sums must not change
        del config["transform"]
    if "quantizer" in config:  # likewise
        added = {name: getattr(QuantizerConfig(), name) for name in ("normalize", "straight_through")}
        config["quantizer"] = {k: v for k, v in config["quantizer"].items() if k not in added or v != added[k]}
    if "tokens" in config:  # likewise, of generators
        config["tokens"] = {k: v for k, v in config["tokens"].items() if k not in ("tokenizer", "num_codes") or v}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def _git(root: Path, *arguments: str) -> str:
    try:
        result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
