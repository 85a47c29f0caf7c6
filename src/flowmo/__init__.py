"""FlowMo: a picture to a few hundred bytes and back (mode-seeking diffusion autoencoders, ICCV 2025).

``model = flowmo.load()``, then ``model.tokenize(images)`` and ``model.detokenize(tokens)``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import ConfigError, DataError, FlowMoError, ImageError, TokenFileError, TrainingError, WeightsError

if TYPE_CHECKING:
    from .config import FlowMoConfig
    from .image_utils import to_pil
    from .presets import flowmo_fewer_params, flowmo_hi, flowmo_lo, flowmo_mini_64, flowmo_mini_hi, flowmo_mini_lo
    from .quantize import Quantized
    from .quantize.tokens import Tokens
    from .tokenizer import FlowMo
    from .weights import load

__all__ = [
    "ConfigError",
    "DataError",
    "FlowMo",
    "FlowMoConfig",
    "FlowMoError",
    "ImageError",
    "Quantized",
    "TokenFileError",
    "Tokens",
    "TrainingError",
    "WeightsError",
    "__version__",
    "flowmo_fewer_params",
    "flowmo_hi",
    "flowmo_lo",
    "flowmo_mini_64",
    "flowmo_mini_hi",
    "flowmo_mini_lo",
    "load",
    "to_pil",
]

_HOMES = {"FlowMo": "tokenizer", "FlowMoConfig": "config", "Quantized": "quantize", "Tokens": "quantize.tokens"}
_HOMES |= {"load": "weights", "to_pil": "image_utils"} | {
    name: "presets" for name in __all__ if name.startswith("flowmo_")
}


def __getattr__(name: str) -> Any:
    """Return a public name from its module, which is imported now: 'flowmo --version' needs no PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
