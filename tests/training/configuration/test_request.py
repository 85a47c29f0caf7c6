"""What is asked of a training, as a notebook asks it: recipe, settings, model, and what a stored run changes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch

from flowmo.errors import ConfigError
from flowmo.presets import PRESETS, preset, tiny
from flowmo.stages import Distillation
from flowmo.tokenizer import FlowMo
from flowmo.training import AutoencodeTrainConfig, DistillTrainConfig, TrainConfig, short
from flowmo.training.configuration.config import STAGES, StageEntry
from flowmo.training.configuration.recipes import published
from flowmo.training.configuration.request import Request
from flowmo.training.configuration.settings import with_settings


@pytest.mark.parametrize(
    ("request_", "recipe"),
    [
        (Request(), "short"),
        (Request(recipe="published"), "published"),
        (Request(recipe="none"), "none"),
        (Request(stage="autoencode"), "none"),
        (Request(settings=("stage=autoencode",)), "none"),
        (Request(freeze_encoder=True), "none"),
        (Request(init=lambda: FlowMo(tiny())), "none"),
    ],
)
def test_short_is_the_recipe_of_a_new_model_alone(request_: Request, recipe: str) -> None:
    assert request_.begun(None).recipe == recipe


def test_a_run_goes_on_by_its_own_recipe_unless_another_is_asked_for() -> None:
    stored = short.Begun("published", None)
    assert Request().begun(stored).recipe == "published"
    assert Request(recipe="mup").begun(stored).recipe == "mup"
    assert Request().begun(short.Begun("of a newer version", None)).recipe == "none"


def test_settings_change_the_recipe_and_its_length() -> None:
    request = Request(settings=("images=800", "batch_size=8", "learning_rate=0.5"))
    begun = request.begun(None)
    assert (begun.recipe, begun.images) == ("short", 800)
    config = request.config(begun)
    assert isinstance(config, TrainConfig)
    assert (config.images, config.batch_size, config.learning_rate) == (800, 8, 0.5)
    assert config.cooldown_images == 200  # a quarter of the length that was asked for
    assert request.asked() == {"images": 800, "batch_size": 8}


def test_stages_and_recipes_of_the_configuration() -> None:
    request = Request(recipe="published", stage="autoencode")
    found = request.config(request.begun(None))
    assert isinstance(found, AutoencodeTrainConfig)
    assert found.learning_rate == published("flowmo-mini-64").learning_rate
    frozen = Request(freeze_encoder=True)
    assert frozen.config(frozen.begun(None)) == replace(TrainConfig(), freeze_encoder_after=0)
    decoder = Request(settings=("stage=mode_seeking",))
    with pytest.raises(ConfigError, match="use flowmo posttrain"):
        decoder.config(decoder.begun(None))


def test_a_stage_of_the_decoder_that_has_no_command_is_told_what_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but its entry says anything of it."""

    @dataclass(frozen=True)
    class Config(DistillTrainConfig):
        stage: Literal["polish"] = "polish"  # type: ignore[assignment]

    monkeypatch.setitem(STAGES, "polish", StageEntry(Config, Distillation))
    request = Request(settings=("stage=polish",))
    with pytest.raises(ConfigError, match=r"only the decoder; use flowmo[.]training[.]train"):
        request.config(request.begun(None))
    with pytest.raises(ConfigError, match="polish trains the decoder alone: freeze_encoder_after must be 0"):
        with_settings(Config(), ["freeze_encoder_after=8"], lambda _: None)
    said: list[str] = []
    assert with_settings(Config(), ["sample.num_steps=4"], said.append) == Config()
    assert said[0].startswith("note: sample.num_steps is not a setting of the stage polish")


def test_the_model_is_the_preset_or_the_weights() -> None:
    new = Request("tiny", model=("decoder.depth=1",)).new_model("none")
    assert new.config == replace(tiny(), decoder=replace(tiny().decoder, depth=1))
    torch.manual_seed(5)
    weights = FlowMo(tiny())
    request = Request("flowmo-mini-64", init=lambda: weights)
    assert request.new_model("none") is weights
    assert request.model_config("none") == tiny()
    with pytest.raises(ConfigError, match="cannot give a base width"):
        request.new_model("mup")
    with pytest.raises(ConfigError, match="--init"):
        Request(init=lambda: weights, model=("decoder.depth=1",))
    with pytest.raises(ConfigError, match="no preset"):
        Request("flowmo-maxi").model_config("none")
    assert Request("flowmo-lo").model_config("none") == preset("flowmo-lo")


def test_without_a_time_limit_the_length_is_the_usual_one() -> None:
    said: list[str] = []
    found = Request("tiny").fitted(None, None, None, math.inf, said.append)  # type: ignore[arg-type]
    assert found == short.Begun("short", short.USUAL_IMAGES)
    assert "--time-limit asks for another length" in said[0]


@pytest.mark.parametrize("name", [name for name in PRESETS if PRESETS[name]().transform is not None])
def test_a_closed_form_code_is_computed_before_it_is_trained(name: str) -> None:
    """Trained from nothing, its code would be empty for ever."""
    for recipe in (None, "none"):
        with pytest.raises(ConfigError, match=f"fit-transform DATA --preset {name} --out start.safetensors"):
            Request(name, recipe).begun(None)
    begun = Request(name, "none", init=lambda: FlowMo(tiny())).begun(None)
    assert Request(name, "none").begun(begun) == begun  # a run that has begun goes on
