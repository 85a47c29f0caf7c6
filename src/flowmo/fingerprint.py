"""The fingerprint of a token file: which encoder and quantizer made it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields

import torch
from torch import nn

from .config import FlowMoConfig

NOT_IN_TOKENS = ("kind", "temperature", "straight_through")
"""Settings of a quantizer under other names in a fingerprint, or that change losses and gradients alone."""


def fingerprint_of(config: FlowMoConfig, encoder: nn.Module, quantizer: nn.Module) -> int:
    """Return 32 bits of a hash of the settings and weights that decide which tokens an image gets.

    Weights count in half precision.
    """
    c = config
    # What the weights do not show, named one by one: a setting that the configuration gains later must not make old
    # files unreadable.
    settings: dict[str, object] = {
        "num_tokens": c.num_tokens,
        "bits_per_token": c.bits_per_token,
        "bits_per_group": c.bits_per_group,
        "quantizer": c.quantizer.kind,
        "levels": c.quantizer.levels if c.quantizer.kind == "fsq" else None,
        "tanh_bound": c.quantizer.tanh_bound,
        "initial_latent": c.initial_latent,
        "latent_positions": c.latent_positions,
    }
    for f in fields(c.quantizer):  # those that a quantizer has gained since, where they are not the usual ones
        if f.name not in (*settings, *NOT_IN_TOKENS) and getattr(c.quantizer, f.name) != f.default:
            settings[f.name] = getattr(c.quantizer, f.name)
    if c.encoder.width_multiplier != 1:
        settings["width_multiplier"] = c.encoder.width_multiplier
    if c.transform is not None:
        settings |= {"patch_size": c.transform.patch_size, "class_bits": c.transform.class_bits}
        del settings["num_tokens"]  # those of one size of image, and it codes any
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    weights = sorted(encoder.state_dict().items())
    weights += [(f"quantizer.{name}", weight) for name, weight in sorted(quantizer.state_dict().items())]
    for name, weight in weights:
        digest.update(name.encode())
        digest.update(weight.detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
    return int.from_bytes(digest.digest()[:4], "little")
