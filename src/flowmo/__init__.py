"""FlowMo: a picture to a few hundred bytes and back (mode-seeking diffusion autoencoders, ICCV 2025).

``model = flowmo.load()``, then ``model.tokenize(images)`` and ``model.detokenize(tokens)``.
"""

from .config import FlowMoConfig
from .errors import ConfigError, DataError, FlowMoError, ImageError, TokenFileError, TrainingError, WeightsError
from .image_utils import to_pil
from .presets import flowmo_fewer_params, flowmo_hi, flowmo_lo, flowmo_mini_64, flowmo_mini_hi, flowmo_mini_lo
from .quantize import Quantized
from .quantize.tokens import Tokens
from .tokenizer import FlowMo
from .weights import load

__version__ = "0.1.0"

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
