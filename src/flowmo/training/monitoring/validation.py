"""Validation while training: it gives numbers, images and weights of the EMA (Section 3.3; D3).

Of a run that may stop early, it keeps the best weights too.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..configuration.run_config import RunConfig
from ..optimization.state import TrainState
from ..processes.distributed import World, whole
from ..trained import ModelKind, with_weights
from .early_stopping import SECONDS, best, validations_of, verdict
from .health import Meter
from .logs import Log

IMAGES, BEST = "pictures", "best"  # the folder of sample images, and the name of the best weights, in a run's folder
MOST_TIME = 0.03  # share of a run that validation may take without a warning
MOST_OF_LIMIT = 0.07  # share of the time left at its beginning that one validation may take; else all are left out
LATE = 3.0  # seconds after a time limit by which a last validation may end
Validation = Callable[[Any, int], dict[str, Any]]
"""(EMA model in evaluation mode and in the run's precision, images seen) -> numbers for the log; writes
``pictures/<images>.png``. It is called in every process, which may measure its share; the main one's numbers count."""


@dataclass(frozen=True)
class SizedValidation:
    """A validation of as many held-out things as one likes, so that a few tell what all will take."""

    make: Callable[[Any, World, int, Path], Validation]
    """(model, processes, number of held-out images, folder of the sheets) -> what validates."""
    count: int  # of held-out images
    folder: Path  # of the sheets
    fewest: int = 1  # that are measured as all are: rFID needs several

    def __call__(self, model: Any, world: World) -> Validation:
        """Return what validates on all, with which each process measures its share."""
        return self.make(model, world, self.count, self.folder)

    def seconds(self, model: Any, world: World, most: float) -> float:
        """Return about how many seconds it takes from now to have validated once; the same in every process.

        It is measured on one image and, where that takes no more than ``most``, on the fewest. Every process must call
        it.
        """
        for tried in sorted({1, min(self.fewest, self.count)}):
            seconds = self._seconds_by(tried, model, world)
            if seconds > most:
                break
        return seconds

    def _seconds_by(self, tried: int, model: Any, world: World) -> float:
        """Return what :meth:`seconds` does, measured on ``tried`` images."""
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            validation = self.make(model, World(device=world.device), tried, Path(folder))
            made = time.monotonic()
            with torch.no_grad():
                validation(model, 0)
        ready, each = made - began, (time.monotonic() - made) / tried
        return world.largest([ready + each * self.count / world.size])[0]


@dataclass
class Validator:
    """What validates a run and writes its weights."""

    folder: Path  # of the run
    config: RunConfig  # of the run
    kind: ModelKind  # how its model is written
    state: TrainState  # what is validated
    world: World  # the processes, each of which measures its share
    log: Log | None  # in the main process only
    validation: Validation | None = None  # what measures the EMA; None measures nothing
    patience: int | None = None  # of a run that validation may end
    deadline: float = math.inf  # of the run, by ``time.monotonic()``
    longest: float = 0.0  # seconds that one validation is known to take
    meter: Meter = field(default_factory=Meter)  # its clock leaves validation out
    began: float = field(default_factory=time.monotonic)  # when this call of the run began
    seconds: float = 0.0  # that validation has taken
    warned: bool = False  # whether it was said that validation takes long

    def begin(self) -> str | None:
        """Validate once before any training, where validation may end the run; return why it has ended already."""
        if self.patience is None or self.validation is None:
            return None
        found = self.world.share(validations_of(self.log.path) if self.log else None)
        return verdict(found, self.patience) if found else self.validate()

    def validate(self) -> str | None:
        """Write images, numbers and weights of the EMA; return why the run is to stop, None where it is not.

        Every process must call it, and measures its share. Where validation may end the run, the best weights so far
        are kept too.
        """
        start, images, early = time.monotonic(), self.state.images_seen, None
        model = self.write_average()
        numbers = {"images": images} | self.measure() if self.in_time() else {}
        if model is not None and numbers and self.log:
            self.log.write(numbers | {SECONDS: round(time.monotonic() - start, 3)})
            self.log.image(self.folder / IMAGES / f"{images:010d}.png", images)
            if self.patience is not None:
                found = validations_of(self.log.path)
                if best(found) == numbers:
                    about = {"weights": "EMA, best validation"} | numbers
                    self.kind.save(model, self.folder / f"{BEST}.safetensors", torch.float16, about)
                early = verdict(found, self.patience)
        self.world.wait()
        taken = time.monotonic() - start
        self.seconds += taken
        self.longest = max(self.longest, taken) if numbers else self.longest
        self.warn()
        self.meter.restart_clock()
        return self.world.share(early)

    def in_time(self) -> bool:
        """Return whether there is a validation and it ends by the time limit. Every process must call it."""
        if self.validation is None:
            return False
        late = self.world.largest([time.monotonic() + self.longest - self.deadline])[0] > LATE
        if late and self.log:
            self.log.say(f"validation is left out here: it takes {self.longest:.1f} s, and the time limit is near")
        return not late

    def measure(self) -> dict[str, Any]:
        """Return what validation finds of the EMA in the run's precision. Every process must call it."""
        assert self.validation is not None
        with torch.no_grad():
            return self.validation(self.averaged(), self.state.images_seen)

    def averaged(self) -> nn.Module:
        """Return the EMA as it is validated, in the run's precision. Every process must call it.

        The weights on the device are the EMA's own where it is whole and in float32, and copies elsewhere.
        """
        weights = {name: whole(tensor) for name, tensor in self.state.ema.weights.items()}
        dtype = torch.bfloat16 if self.config.chosen_precision == "bf16" else torch.float32
        return with_weights(self.kind, self.state.model, weights).to(self.world.device, dtype).eval()

    def warn(self) -> None:
        """Say once that validation takes more than 3 % of the time, and what to do about it."""
        share = self.seconds / max(time.monotonic() - self.began, 1e-9)
        if self.log and not self.warned and share > MOST_TIME and 0 < self.state.images_seen < self.config.images:
            self.warned = True
            rarer = round(self.config.validate_every * share / MOST_TIME)
            note = f"note: validation takes {share:.0%} of the time so far; --set validate_every={rarer} makes it 3 %"
            self.log.say(note)

    def write_average(self) -> nn.Module | None:
        """Write the averaged weights to ``model.safetensors``; return the model, on the CPU, in the main process.

        Every process must call it.
        """
        return self.write_weights("model", "EMA", self.state.ema.weights, torch.float16)

    def save_raw(self, name: str, what: str) -> None:
        """Write the raw weights, not their average, to NAME.safetensors in float32. Every process must call it."""
        self.write_weights(name, what, dict(self.state.model.named_parameters()), torch.float32)

    def write_weights(self, name: str, what: str, source: dict[str, Any], dtype: torch.dtype) -> nn.Module | None:
        """Write ``source`` as a model file; return the model that holds it, on the CPU, in the main process."""
        weights: dict[str, Tensor] = {}
        for key, tensor in source.items():
            full = whole(tensor.detach())
            if self.world.main:
                weights[key] = full.cpu().clone()
        if not self.world.main:
            return None
        model = with_weights(self.kind, self.state.model, weights)
        seen, planned = self.state.images_seen, self.config.images
        about = {"images": seen, "images_planned": planned, "finished": seen >= planned, "weights": what}
        self.kind.save(model, self.folder / f"{name}.safetensors", dtype, about)
        return model
