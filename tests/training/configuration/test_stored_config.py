"""Settings of version 0.1.0, which knew all stages' in every run: in checkpoints and in commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from run_support import checkpoints_of, command, log_of

from flowmo.cli.main import main
from flowmo.config import to_dict
from flowmo.errors import ConfigError
from flowmo.setting_names import RENAMED
from flowmo.training import AutoencodeTrainConfig, DistillTrainConfig, PostTrainConfig, TrainConfig, read_newest
from flowmo.training.configuration.recipes import distillation, post_training
from flowmo.training.configuration.run_config import RunConfig
from flowmo.training.configuration.settings import with_settings
from flowmo.training.configuration.stored_config import stored_config

OLD_SAMPLE = {
    "weight": 0.01, "mode": "chain", "num_steps": 8, "grid": "random", "rho": None, "network": "efficientnet_lite0",
    "network_side": 224, "share": 1.0, "recompute": True, "patience": 2,
}  # fmt: skip
OLD_DISTILL = {
    "steps": [1], "target": "teacher", "teacher_steps": None, "teacher_rho": None, "teacher_guidance": None,
    "pixel_weight": 1.0, "flow_weight": 0.0,
}  # fmt: skip
OLD = {
    "images": 320, "batch_size": 8, "micro_batch": None, "learning_rate": 0.001, "betas": [0.9, 0.95],
    "warmup_images": 40, "cooldown_images": 80, "weight_normalization": True, "gradient_clip": None,
    "ema_horizon": 0.04, "ema_decay": None, "ema_every": 1, "precision": "fp32", "seed": 0, "strategy": "ddp",
    "recompute_blocks": False, "compile": False, "most_skipped": 10, "log_steps": 1, "check_images": 200,
    "checkpoint_minutes": 0, "keep": 3, "stage": "mode_matching",
    "losses": {"perceptual": 0, "entropy": 0.0025, "commitment": 0.000625},
    "perceptual_network": "vgg", "perceptual_share": 1.0, "sample": OLD_SAMPLE, "distill": OLD_DISTILL,
    "noise_levels": {
        "uniform_mass": 0.1, "location": 0.0, "scale": 1.0, "pure_noise_mass": 0.0, "curriculum_mass": 0.7,
        "curriculum_images": 0, "anneal_images": 0,
    },
    "code_dropout": 0.1, "freeze_encoder_after": None, "entropy_over": "micro_batch", "crop_size": None,
    "flip": False, "workers": 1,
}  # fmt: skip
"""What version 0.1.0 stored of the run of ``run_support.command``."""

LATER = {
    "tf32",
    "perceptual_crop",
    "perceptual_scales",
    "rates",
    "learning_rates",
    "optimizer",
    "noise_sync",
    "losses.flow",
    "sample.crop",
    "sample.lpips_weight",
}
"""Settings that came later; an old run takes their defaults."""


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        ("mode_matching", TrainConfig),
        ("autoencode", AutoencodeTrainConfig),
        ("mode_seeking", PostTrainConfig),
        ("distillation", DistillTrainConfig),
    ],
)
def test_every_stage_of_an_old_checkpoint_is_read(stage: str, kind: type[RunConfig]) -> None:
    old: dict[str, Any] = OLD | {"stage": stage, "code_dropout": 0.2, "learning_rate": 0.25}
    old |= {"sample": OLD_SAMPLE | {"share": 0.5}, "distill": OLD_DISTILL | {"steps": [2, 1]}}
    if kind in (PostTrainConfig, DistillTrainConfig):
        old["freeze_encoder_after"] = 0
    config = stored_config(TrainConfig, old)
    assert type(config) is kind
    kept = to_dict(config)
    assert kept["learning_rate"] == 0.25
    old = {RENAMED.get(name, name): value for name, value in old.items()}
    for name, value in kept.items():
        if name in LATER:
            assert value == to_dict(kind())[name]
            continue
        if name == "distill":
            assert value.pop("teacher_solver") is None
        for key in [key for key in LATER if key.startswith(f"{name}.")]:
            value.pop(key.partition(".")[2], None)
        expected = {key: old[name][key] for key in value} if isinstance(value, dict) else old[name]
        assert value == expected, name
    assert stored_config(TrainConfig, kept) == config


def test_a_setting_by_its_old_name_is_the_setting() -> None:
    assert with_settings(TrainConfig(), ["check_images=7"], pytest.fail) == TrainConfig(validate_every=7)
    assert with_settings(distillation(), ["check_images=7"], pytest.fail).validate_every == 7


def test_unknown_settings_of_a_checkpoint_are_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting .losses\.entrpy."):
        stored_config(TrainConfig, OLD | {"losses": {"entrpy": 1}})
    with pytest.raises(ConfigError, match="stage must be one of mode_matching, autoencode, mode_seeking, distillation"):
        stored_config(TrainConfig, OLD | {"stage": "later"})


def test_a_run_of_0_1_0_goes_on(data: Path, three_steps: Path, tmp_path: Path) -> None:
    """Its checkpoints stored the settings of all stages; it ends as the run that nothing interrupted."""
    assert main(command(data, tmp_path, "--time-limit", "0s")) == 0
    about = checkpoints_of(tmp_path)[-1] / "checkpoint.json"
    content = json.loads(about.read_text())
    assert set(content["train_config"]) - LATER < {RENAMED.get(name, name) for name in OLD}
    del content["sha256"]  # its manifests had none of their own
    about.write_text(json.dumps(content | {"format": "flowmo-checkpoint-2", "train_config": OLD}))
    assert main(command(data, tmp_path, "--time-limit", "0s")) == 0
    assert log_of(tmp_path)[2] == log_of(three_steps)[2]
    found = read_newest(tmp_path)
    assert found is not None
    assert "distill" not in found.about["train_config"]


def test_settings_of_another_stage_are_left_out_with_a_note() -> None:
    """Commands of 0.1.0 may have them; they never changed anything there."""
    said: list[str] = []
    config = with_settings(post_training(), ["perceptual_share=0.25", "freeze_encoder_after=0", "seed=3"], said.append)
    assert config == with_settings(post_training(), ["seed=3"], said.append)
    assert [line.split()[1] for line in said] == ["perceptual_share", "freeze_encoder_after"]
    assert with_settings(TrainConfig(), ["distill.steps=[4]"], said.append) == TrainConfig()
    assert len(said) == 3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("losses.perceptual=0.1", "losses.perceptual must be 0"),
        ("freeze_encoder_after=8", "distillation trains the decoder alone: freeze_encoder_after must be 0"),
        ("sample.num_steps=4", "set distill.steps; leave sample.num_steps out"),
        ("sampel.weight=1", "did you mean 'sample.weight'"),
    ],
)
def test_what_a_stage_cannot_do_is_said(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_settings(distillation(), [setting], lambda _: None)
