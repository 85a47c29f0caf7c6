"""Weights in and out: our safetensors files and the released checkpoints."""

from .load import load, weights_path
from .native import load_model, read_about, save_model, save_model_shards, store_sampler
from .official import load_official, official_layout, unused_keys

__all__ = [
    "load",
    "load_model",
    "load_official",
    "official_layout",
    "read_about",
    "save_model",
    "save_model_shards",
    "store_sampler",
    "unused_keys",
    "weights_path",
]
