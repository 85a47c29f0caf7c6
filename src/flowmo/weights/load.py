"""``flowmo.load``: the packaged model, a file, a folder, a released checkpoint, or a model of the hub."""

from __future__ import annotations

import os
from collections.abc import Collection
from importlib import resources
from pathlib import Path

import torch

from ..devices import put_on
from ..errors import WeightsError
from ..files import user_path
from ..hub import is_address
from ..presets import PRESETS
from ..tokenizer import FlowMo
from .hub import RELEASED, is_remote, load_converted, remote_path
from .native import load_model
from .official import load_official
from .shards import INDEX

PACKAGED = "flowmo-mini"


def load(
    name: str | Path = PACKAGED,
    *,
    ema: bool = True,
    num_tokens: int = 256,
    image_size: int = 256,
    bits_per_group: int | None = None,
    device: str | torch.device = "cpu",
    revision: str | None = None,
) -> FlowMo:
    """Return a model ready to use, in evaluation mode.

    name: the packaged model (default); a ``.safetensors`` file; a folder with ``model.safetensors``, or with shards and
    ``model.safetensors.index.json``; a released ``.pth`` file; ``flowmo-lo`` or ``flowmo-hi``, which are fetched from
    the Hugging Face hub, as ``owner/name`` of any model there is; or the address of a file.
    num_tokens, image_size, bits_per_group: what a released file's shapes do not say; bits_per_group is 9 for 18-bit and
    14 for 56-bit tokens unless given. ``ema=False`` takes a released file's raw weights.
    device: ``auto`` is the first of cuda, mps, xpu and cpu that is there.
    revision: of a model on the hub, a branch, tag or commit.
    Nothing in a file is ever executed.

    Raises WeightsError when there are no such weights, or they are damaged; ConfigError for a device that is not there.
    """
    _check_name(name)
    if (folder := checkpoint_folder(name)) is not None:
        raise WeightsError(
            f"{folder} holds checkpoints and no model yet, since its run was killed: "
            f"flowmo.training.averaged_model({str(folder)!r}) loads it, the commands take it as --model and --init, "
            "and the run's own command goes on and writes a model"
        )
    path = weights_path(name, revision)
    if path.suffix in (".pth", ".pt"):
        read = load_converted if str(name) in RELEASED else load_official
        model = read(path, ema, num_tokens=num_tokens, image_size=image_size, bits_per_group=bits_per_group)
        return put_on(model, device)
    return put_on(load_model(path), device)


def checkpoint_folder(name: str | Path) -> Path | None:
    """Return the folder where ``name`` is a checkpoint, or a run that has checkpoints and no model yet; else None."""
    if name == PACKAGED or is_address(str(name)):
        return None
    path = user_path(name)
    if not path.is_dir():
        return None
    if (path / "checkpoint.json").is_file():
        return path
    has_model = any((path / file).exists() for file in ("model.safetensors", INDEX))
    return path if not has_model and any(path.glob("checkpoint-*/checkpoint.json")) else None


def weights_path(name: str | Path, revision: str | None = None) -> Path:
    """Return the file that :func:`load` reads for ``name``, fetched where it is a model of the hub or an address.

    Whether it exists is known only of these and of packaged models.

    Raises WeightsError for a name that is none of these, and for a model that cannot be fetched.
    """
    _check_name(name)
    if name == PACKAGED:  # before any file or folder of that name
        return packaged_path(PACKAGED)
    if is_address(str(name)):
        return remote_path(str(name), revision)
    path = user_path(name)
    if path.is_dir():
        whole, index = path / "model.safetensors", path / INDEX
        path = index if index.is_file() and not whole.exists() else whole
    if path.suffix in (".pth", ".pt", ".safetensors") or path.exists():
        return path
    return remote_path(str(name), revision) if is_remote(name) else packaged_path(str(name))


def packaged_path(name: str) -> Path:
    """Return where the packaged weights of that name lie. Raises WeightsError, with the way to get some."""
    path = Path(str(resources.files("flowmo"))) / "weights" / "packaged" / f"{name}.safetensors"
    if path.is_file():
        return path
    if name in RELEASED:
        repository, file = RELEASED[name]
        raise WeightsError(
            f"{name!r} is a configuration without packaged weights; the authors' {file} of {repository} is fetched "
            f"from the Hugging Face hub where a model is asked for: flowmo.load({name!r}), or --model {name}"
        )
    if name in PRESETS:
        raise WeightsError(
            f"{name!r} is a configuration without weights. Load a released model ('flowmo-lo' or 'flowmo-hi'), train "
            f"one with 'flowmo train', or use the packaged {PACKAGED!r}"
        )
    raise WeightsError(
        f"no model {name!r}: neither a file, a folder, nor a packaged model ({PACKAGED!r}); a model "
        "of the Hugging Face hub is named owner/name"
    )


def packaged_names() -> list[str]:
    """Return the names of all packaged tokenizers, the default first."""
    names = {path.stem for path in packaged_path(PACKAGED).parent.glob("*.safetensors")}
    return [PACKAGED, *sorted(names - {PACKAGED})]


def packaged_by_fingerprint(fingerprints: Collection[int]) -> dict[str, FlowMo]:
    """Return the packaged tokenizers that have one of these fingerprints, by name and on the CPU, the default first."""
    models = {name: load(name) for name in packaged_names()}
    return {name: model for name, model in models.items() if model.fingerprint() in fingerprints}


def _check_name(name: object) -> None:
    if isinstance(name, bytes) or not isinstance(name, (str, os.PathLike)) or not os.fspath(name):
        raise WeightsError(f"a model is named by text or a path, not {name!r}; flowmo.load() alone is {PACKAGED!r}")
