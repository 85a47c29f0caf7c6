"""What a model or a released checkpoint is, in plain numbers, for ``flowmo info``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import FlowMoConfig, to_dict
from ..quantize.tokens import payload_size
from ..tokenizer import FlowMo
from .official import config_from_shapes, official_layout, open_official, state_dict_of


def describe_config(config: FlowMoConfig) -> dict[str, Any]:
    """Return sizes that follow from a configuration alone; parameters are counted without allocating any."""
    with torch.device("meta"):
        return _describe(FlowMo(config))


def _describe(model: FlowMo) -> dict[str, Any]:
    config = model.config
    counts = {side: sum(p.numel() for p in getattr(model, side).parameters()) for side in ("encoder", "decoder")}
    bits = config.num_tokens * config.bits_per_token
    return {
        "parameters": counts | {"total": sum(counts.values())},
        "image_size": config.image_size,
        "tokens_per_image": config.num_tokens,
        "bits_per_token": config.bits_per_token,
        "bits_per_image": bits,
        "bytes_per_image": payload_size(config.num_tokens, config.bits_per_token),
        "bits_per_pixel": config.bits_per_pixel,
        "config": to_dict(config),
    }


def describe_model(model: FlowMo) -> dict[str, Any]:
    """Return :func:`describe_config` of a model's configuration, and the fingerprint that its token files carry.

    The fingerprint is eight hexadecimal digits.
    """
    return {"fingerprint": f"{model.fingerprint():08x}"} | _describe(model)


def describe_official(path: Path) -> dict[str, Any]:
    """Return what a released ``.pth`` holds besides the model.

    That is its sets of weights, its training steps where it names them, and how many of its keys our model uses. Raises
    WeightsError as :func:`load_official` does.
    """
    content = open_official(path)
    sets = [
        str(name)
        for name, value in content.items()
        if isinstance(value, dict) and value and all(isinstance(v, Tensor) for v in value.values())
    ]
    state = state_dict_of(content, sets[0] if sets else "model_ema_state_dict", path)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    layout = official_layout(config_from_shapes(shapes, bits_per_group=1))
    facts: dict[str, Any] = {
        "weights": sets or ["one set, without a name"],
        "keys": len(shapes),
        "keys_used": sum(slot.name is not None for key, slot in layout.items() if key in shapes),
        "keys_unused": sorted(key for key, slot in layout.items() if slot.name is None and key in shapes),
    }
    steps = content.get("total_steps")
    if isinstance(steps, (int, float)) or (isinstance(steps, Tensor) and steps.numel() == 1):
        facts["total_steps"] = int(steps)
    return facts
