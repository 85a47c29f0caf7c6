"""Models are loaded by what a person calls them, on a device and in a precision (Section 5, released weights)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from ..errors import ConfigError
from ..inference import made_ready
from ..tokenizer import FlowMo
from ..weights import load
from ..weights.load import checkpoint_folder


@dataclass(frozen=True)
class LoadOptions:
    """How models are loaded; commands that load some have flags for the fields."""

    device: torch.device | str = "cpu"  # where they are
    raw_weights: bool = False  # of a released .pth, those that are not averaged
    num_tokens: int | None = None  # of a released .pth; None for what its name or its weights say
    image_size: int | None = None  # likewise, height and width in pixels
    bits_per_group: int | None = None  # likewise
    precision: str = "fp32"  # of the weights: "fp32" or "bf16"
    compile: bool = False  # whether the passes are compiled, for whole batches
    batch_size: int = 16  # images of such a batch

    def load(self, name: str) -> FlowMo:
        """Return the model of this name, in float32. Raises WeightsError or ConfigError.

        name: a packaged model, a .safetensors file, the folder of a run, a checkpoint or a released .pth.
        """
        released = Path(name).suffix in (".pth", ".pt")
        extra = {flag: value for flag in PTH if (value := getattr(self, flag)) is not None}
        if (extra or self.raw_weights) and not released:
            raise ConfigError(f"--pth is for released .pth files; {name} stores these settings. Did you mean --size?")
        if (folder := checkpoint_folder(name)) is not None:
            from ..training.start import averaged_model  # only here: it takes long to import

            return averaged_model(folder).to(self.device)
        return load(name, ema=not self.raw_weights, device=self.device, **extra)

    def ready(self, model: FlowMo) -> FlowMo:
        """Return the model in the precision that is asked for, compiled where that is."""
        return made_ready(model, self.precision, self.compile, self.batch_size)

    def load_ready(self, names: Sequence[str], tokens: bool = False) -> list[FlowMo]:
        """Return the models of these names, ready. Raises WeightsError or ConfigError.

        tokens: whether they must have some, so that a model of a continuous latent is refused.
        """
        models = [self.load(name) for name in names]
        for model in models if tokens else ():
            model.require_tokens()
        return [self.ready(model) for model in models]


PTH = tuple(f.name for f in fields(LoadOptions) if f.default is None)
"""What a released .pth file does not say itself."""
