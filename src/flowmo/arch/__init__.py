"""Section 3.1: the two transformers and what they are made of."""

from .decoder import Decoder, masked_code, null_code
from .encoder import Encoder

__all__ = ["Decoder", "Encoder", "masked_code", "null_code"]
