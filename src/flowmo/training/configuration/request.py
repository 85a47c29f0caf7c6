"""What is asked of a run that trains a whole tokenizer (Stage 1A, or the plain regression, F5).

The settings that follow from it are found here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from ...config import FlowMoConfig, override
from ...data import ImageSource
from ...errors import ConfigError
from ...presets import preset
from ...tokenizer import FlowMo
from .. import short
from ..plan import TokenizerPlan
from ..processes.distributed import World
from .config import FIRST_STAGE, STAGES, ImageRunConfig, TrainConfig
from .recipes import RECIPES, check_weights, model_of
from .settings import with_settings

FEW_IMAGES, PACKAGED_IMAGES = 5_000, 336_000  # of a run that is worth a warning; those that the packaged model saw
BATCHES = ("batch_size", "micro_batch")  # settings that fix how large a batch is
WHOLE = [name for name, entry in STAGES.items() if not entry.config.decoder_only]
"""The stages that train encoder and decoder."""


@dataclass(frozen=True)
class Request:
    """What is asked of a run; ``flowmo train`` has a flag for each field."""

    preset: str = "flowmo-mini-64"  # the model, where it is new
    recipe: str | None = None  # settings to start from, by name; None leaves the choice to :meth:`begun`
    stage: str | None = None  # one of WHOLE
    model: Sequence[str] = ()  # "name=value" of the preset
    settings: Sequence[str] = ()  # "name=value" of the training
    init: Callable[[], FlowMo] | None = None  # gives the weights to start from; None starts anew
    freeze_encoder: bool = False  # whether the decoder alone is trained
    init_name: str = ""  # what the weights to start from are called

    def __post_init__(self) -> None:
        if self.init and self.model:
            raise ConfigError("--config cannot change the model that --init loads")

    @property
    def start(self) -> str:
        """Return what the run starts from, in words."""
        return (self.init_name or "weights") if self.init else f"preset {self.preset}"

    def begun(self, stored: short.Begun | None) -> short.Begun:
        """Return what the run begins with, or has begun with.

        The recipe is the one asked for, else that of ``stored``, else ``short`` for a new model.
        """
        if self.recipe:
            return (stored or self._new(self.recipe))._replace(recipe=self.recipe)
        if stored:
            known = stored.recipe in (*RECIPES, short.NAME)
            return stored if known else stored._replace(recipe=short.UNSCALED)
        other_stage = any(setting.startswith("stage=") for setting in self.settings)
        plain_stage = self.stage in (None, FIRST_STAGE) and not other_stage
        is_new = not self.init and not self.freeze_encoder
        return self._new(short.NAME if is_new and plain_stage else short.UNSCALED)

    def _new(self, recipe: str) -> short.Begun:
        """Return what a new run begins with; by ``short`` of a length that is asked for, it is validated to match.

        Raises ConfigError for a model that begins as a closed-form code, which must be computed first.
        """
        if self.init is None and preset(self.preset).transform is not None:
            raise ConfigError(
                f"{self.preset} begins as a closed-form code, not as noise: 'flowmo fit-transform DATA --preset "
                f"{self.preset} --out start.safetensors' computes it, and --init start.safetensors trains from it; "
                "--init flowmo-mini goes on from the packaged model"
            )
        images = self.asked().get("images")
        if recipe != short.NAME or images is None:
            return short.Begun(recipe, images)
        return short.Begun(recipe, images, short.validations_of(images, self.model_config(recipe).sampler))

    def asked(self) -> dict[str, int]:
        """Return what the settings say of the run's length and of its batches."""
        settings = [setting for setting in self.settings if setting.partition("=")[0] in ("images", *BATCHES)]
        config = override(TrainConfig(), settings)
        return {name: getattr(config, name) for name in {setting.partition("=")[0] for setting in settings}}

    def config(self, begun: short.Begun, say: Callable[[str], None] = lambda line: None) -> ImageRunConfig:
        """Return the settings of the training. say: told of settings that change nothing. Raises ConfigError."""
        config: ImageRunConfig
        if begun.recipe == short.NAME:
            batch_size = self.asked().get("batch_size", begun.batch_size)
            config = short.short(begun.images or short.USUAL_IMAGES, batch_size, begun.validations.times)
        else:
            config = RECIPES[begun.recipe](self.preset) if begun.recipe in RECIPES else TrainConfig()
        named = [setting.partition("=")[2] for setting in self.settings if setting.startswith("stage=")]
        stage = named[-1] if named else self.stage or FIRST_STAGE
        if stage in STAGES and stage not in WHOLE:
            raise ConfigError(
                f"flowmo train does not run stages that train only the decoder; use {STAGES[stage].run_by}"
            )
        if stage in WHOLE and stage != FIRST_STAGE:
            kind = STAGES[stage].config
            own = [f.name for f in fields(kind) if f.name != "stage" and hasattr(config, f.name)]
            config = kind(**{name: getattr(config, name) for name in own})
        if self.freeze_encoder:
            config = override(config, ["freeze_encoder_after=0"])
        return with_settings(config, self.settings, say)

    def model_config(self, recipe: str) -> FlowMoConfig:
        """Return the configuration of the model that the run begins with. Raises ConfigError or WeightsError."""
        if self.init:
            return self.new_model(recipe).config
        return override(model_of(recipe, preset(self.preset)), list(self.model))

    def new_model(self, recipe: str) -> FlowMo:
        """Return the model that the run begins with. Raises ConfigError or WeightsError."""
        if self.init is None:
            return FlowMo(self.model_config(recipe))
        model = self.init()
        check_weights(recipe, model.config)
        return model

    def fitted(
        self,
        plan: TokenizerPlan,
        source: ImageSource,
        world: World,
        seconds: float,
        say: Callable[[str], None] = lambda line: None,
    ) -> short.Begun:
        """Return a run by ``short`` that fits its time: length in images, batch size, validations.

        They are the same in every process, each of which must call it.
        seconds: the time that there is, from now on; where it has no end, the usual length is taken.
        """
        deadline = time.monotonic() + seconds
        if seconds == math.inf:
            say(f"a run of {short.USUAL_IMAGES:,} images; --set images=N or --time-limit asks for another length")
            return short.Begun(short.NAME, short.USUAL_IMAGES)
        say("measuring the speed here, to fit the run to its time")
        speed = short.measured_speed(plan, source, world, seconds)
        left = world.share(max(0.0, deadline - time.monotonic()))
        fixed = self.asked().keys() & BATCHES
        batch_size = plan.config.batch_size if fixed else short.batch_in(left, speed, world.size)
        length = short.length_in(left, speed, batch_size)
        sampler = self.model_config(short.NAME).sampler
        validations = world.share(short.validations_in(seconds, speed, sampler))
        say(f"{speed:.3g} images/s; {length:,} images fit the time, --set images=N asks for another number")
        if length < FEW_IMAGES:
            hours = PACKAGED_IMAGES / speed / 3600
            say(
                "note: so few images teach a model next to nothing, it only shows that all works; the packaged one saw "
                f"{PACKAGED_IMAGES:,}, which takes {hours:,.0f} h here"
            )
        return short.Begun(short.NAME, length, validations, batch_size)
