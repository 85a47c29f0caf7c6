"""Released FlowMo checkpoints (.pth): every key accounted for, the configuration read off the shapes (B2, B5, D4)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import FlowMoConfig, TransformerConfig
from ..errors import WeightsError
from ..tokenizer import FlowMo
from ..untrusted import check_regular, finite, load_tensors, without_wrappers

DEFAULT_BITS_PER_GROUP = {18: 9, 56: 14}


class Slot(NamedTuple):
    """Where a released tensor goes in our model."""

    shape: tuple[int, ...]  # its own
    name: str | None  # our parameter's name; None: unused (B5)
    first_row: int = 0  # the first row used
    rows: int | None = None  # how many rows are used; None: all of it

    def part(self, tensor: Tensor) -> Tensor:
        return tensor if self.rows is None else tensor[self.first_row : self.first_row + self.rows]


def official_layout(config: FlowMoConfig) -> dict[str, Slot]:
    """Return every key of the released format for ``config``, with its shape and its place in our model.

    The release carries weights that no output depends on: the encoder's time embedding and modulations (B5), the
    readout of the stream that is not read, and most of that stream's last block. They are named and not loaded.
    """
    layout: dict[str, Slot] = {}
    for side in ("encoder", "decoder"):
        _transformer_layout(layout, config, side)
    return layout


def _transformer_layout(layout: dict[str, Slot], config: FlowMoConfig, side: str) -> None:
    c: TransformerConfig = getattr(config, side)
    w, patch, decoder = c.width, 3 * c.patch_size**2, side == "decoder"

    def linear(key: str, shape: tuple[int, int], name: str | None, first_row: int = 0, rows: int | None = None) -> None:
        name = name and f"{side}.{name}"
        layout[f"{side}.{key}.weight"] = Slot(shape, name and f"{name}.weight", first_row, rows)
        layout[f"{side}.{key}.bias"] = Slot(shape[:1], name and f"{name}.bias", first_row, rows)

    linear("time_in.in_layer", (w, 256), "time_embedding.linear_in" if decoder else None)
    linear("time_in.out_layer", (w, w), "time_embedding.linear_out" if decoder else None)
    linear("img_in", (w, patch), "image_in")
    code_channels = config.latent_dim + decoder  # the mask channel (B7)
    linear("txt_in", (w, code_channels), "code_in")
    for i in range(c.depth):
        for theirs, ours in (("img", "image_stream"), ("txt", "code_stream")):
            block, stream = f"double_blocks.{i}.{theirs}", f"blocks.{i}.{ours}"
            updated = i < c.depth - 1 or (ours == "image_stream") == decoder

            def live(name: str, used: bool) -> str | None:
                return f"{stream}.{name}" if used else None  # noqa: B023

            mod_rows = None if updated else 2 * w
            linear(f"{block}_mod.lin", (6 * w, w), live("modulation.linear", decoder), 0, mod_rows)
            if updated:
                linear(f"{block}_attn.qkv", (3 * w, w), f"{stream}.qkv")
            else:
                linear(f"{block}_attn.qkv", (3 * w, w), f"{stream}.kv", w, 2 * w)
            for norm, used in (("query_norm", updated), ("key_norm", True)):
                name = f"{side}.{stream}.{norm}.scale" if used else None
                layout[f"{side}.{block}_attn.norm.{norm}.scale"] = Slot((c.head_dim,), name)
            linear(f"{block}_attn.proj", (w, w), live("proj", updated))
            linear(f"{block}_mlp.0", (c.mlp_ratio * w, w), live("mlp_in", updated))
            linear(f"{block}_mlp.2", (w, c.mlp_ratio * w), live("mlp_out", updated))
    linear("final_layer_img.linear", (patch, w), "readout" if decoder else None)
    linear("final_layer_img.adaLN_modulation.1", (2 * w, w), "readout_modulation.linear" if decoder else None)
    linear("final_layer_txt.linear", (code_channels, w), None if decoder else "readout")
    linear("final_layer_txt.adaLN_modulation.1", (2 * w, w), None)


def config_from_shapes(
    shapes: Mapping[str, tuple[int, ...]],
    num_tokens: int = 256,
    image_size: int = 256,
    bits_per_group: int | None = None,
) -> FlowMoConfig:
    """Return the configuration of a released state dict. What shapes do not say comes in as arguments.

    Raises WeightsError when a key that the reading needs is missing or has the wrong number of dimensions.
    """

    def transformer(side: str) -> TransformerConfig:
        width, patch = shapes[f"{side}.img_in.weight"]
        head_dim = shapes[f"{side}.double_blocks.0.img_attn.norm.query_norm.scale"][0]
        blocks = {m[1] for key in shapes if (m := re.match(rf"{side}\.double_blocks\.(\d+)\.", key))}
        hidden = shapes[f"{side}.double_blocks.0.img_mlp.0.weight"][0]
        return TransformerConfig(round((patch / 3) ** 0.5), width, len(blocks), width // head_dim, hidden // width)

    try:
        bits = shapes["encoder.final_layer_txt.linear.weight"][0]
        encoder, decoder = transformer("encoder"), transformer("decoder")
    except KeyError as missing:
        raise WeightsError(
            f"this is not a released FlowMo state dict: it has no key {missing}. Released files are flowmo_lo.pth and "
            "flowmo_hi.pth; models trained with this package are .safetensors files"
        ) from None
    except (ValueError, IndexError, ZeroDivisionError):
        raise WeightsError(
            "this is not a released FlowMo state dict: it has the keys of one, but their tensors have other dimensions"
        ) from None
    if bits_per_group is None:
        if bits not in DEFAULT_BITS_PER_GROUP:
            raise WeightsError(f"tokens of {bits} bits: say how they are grouped with bits_per_group=...")
        bits_per_group = DEFAULT_BITS_PER_GROUP[bits]
    return FlowMoConfig(encoder, decoder, image_size, num_tokens, bits, bits_per_group)


def load_official(
    path: str | Path,
    ema: bool = True,
    num_tokens: int = 256,
    image_size: int = 256,
    bits_per_group: int | None = None,
) -> FlowMo:
    """Read a released checkpoint, memory-mapped, executing nothing from it. ``ema=False`` takes the raw weights.

    Raises WeightsError for an unreadable file, a missing or unknown key, or a wrong shape.
    """
    path = Path(path)
    checkpoint = open_official(path)
    state = state_dict_of(checkpoint, "model_ema_state_dict" if ema else "model_state_dict", path)
    config = config_from_shapes({k: tuple(v.shape) for k, v in state.items()}, num_tokens, image_size, bits_per_group)
    return model_from_official(state, config, str(path))


def open_official(path: Path) -> dict[Any, Any]:
    """Return the whole content of a checkpoint, executing nothing.

    It is memory-mapped, unless it is in PyTorch's format before 1.6, which cannot be. Raises WeightsError.
    """
    check_regular(path)
    try:
        content = load_tensors(path, mmap=True)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
    except WeightsError as error:
        raise WeightsError(
            f"{path} is damaged, or holds more than tensors and was not opened for safety: {error}"
        ) from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no dictionary of weights")
    return content


def model_from_official(state: Mapping[str, Tensor], config: FlowMoConfig, where: str = "the state dict") -> FlowMo:
    """Build a model from released tensors; each key is used or known to be unused, else WeightsError."""
    layout = official_layout(config)
    problems = [f"missing {key}" for key in layout if key not in state]
    problems += [f"unknown {key}" for key in state if key not in layout]
    problems += [
        f"{key} has shape {tuple(state[key].shape)}, expected {slot.shape}"
        for key, slot in layout.items()
        if key in state and tuple(state[key].shape) != slot.shape
    ]
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise WeightsError(f"{where} does not fit the configuration read off it: {'; '.join(problems[:5])}{more}")
    with torch.device("meta"):
        model = FlowMo(config)
    # One tensor at a time leaves the mapping, so that no second copy of the model ever exists.
    ours = {
        slot.name: finite(slot.part(state[key]), key, Path(where))
        for key, slot in layout.items()
        if slot.name is not None
    }
    model.load_state_dict(ours, assign=True)
    model.encoder.initial_latent = torch.zeros(config.num_tokens, config.latent_dim, dtype=torch.float32)
    return model.eval()


def unused_keys(config: FlowMoConfig) -> list[str]:
    """Return the released keys that no output depends on (B5)."""
    return [key for key, slot in official_layout(config).items() if slot.name is None]


def state_dict_of(checkpoint: dict[Any, Any], name: str, path: Path) -> dict[str, Tensor]:
    """Return the set of weights of that name, or the dictionary itself where it is one, without wrappers' prefixes."""
    state = checkpoint.get(name, checkpoint)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        known = ", ".join(map(str, list(checkpoint)[:8]))
        raise WeightsError(f"{path} has no {name!r}; it holds: {known}")
    size = path.stat().st_size if path.is_file() else None
    if size is not None and sum(v.numel() * v.element_size() for v in state.values()) > size:
        raise WeightsError(f"{path}: its tensors claim more memory than the file has bytes; it is damaged")
    found = {without_wrappers(str(key)): value for key, value in state.items()}
    if len(found) != len(state):
        raise WeightsError(f"{path} holds one weight under two names; save one model without its wrappers")
    return found
