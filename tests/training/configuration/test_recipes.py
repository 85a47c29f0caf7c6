"""The published settings, number by number, and what muP makes of a preset."""

from __future__ import annotations

import pytest
import torch

from flowmo.arch.mup import learning_rate_scales
from flowmo.config import override
from flowmo.presets import PRESETS
from flowmo.stages import LossWeights
from flowmo.stages.curriculum import code_dropout, noise_levels
from flowmo.tokenizer import FlowMo
from flowmo.training.configuration.recipes import RECIPES, model_of, published
from flowmo.training.optimization import schedule as schedules


@pytest.mark.parametrize(("preset", "steps"), [("flowmo-lo", 1_300_000), ("flowmo-hi", 800_000)])
def test_the_published_settings(preset: str, steps: int) -> None:
    """Each as FACTS has it, whatever the defaults become."""
    config = published(preset)
    assert config.images == steps * 128  # A2
    assert config.batch_size == 128  # A13
    assert config.micro_batches(8) == 2
    assert config.micro_batches(1) == 16
    assert config.entropy_over == "micro_batch"  # A7
    assert config.losses == LossWeights(perceptual=0.1, entropy=0.0025, commitment=0.000625)  # A1, A11
    assert (config.perceptual_network, config.perceptual_share) == ("vgg", 1.0)
    assert config.betas == (0.9, 0.95)  # A12
    assert config.gradient_clip is None
    positions = (0, 128, config.images // 2, config.images - 128)
    assert {schedules.learning_rate(config, seen) for seen in positions} == {1e-4}
    assert config.freeze_encoder_after == 200_000 * 128  # A14
    assert config.weight_normalization  # A15
    assert [schedules.ema_decay(config, step) for step in (0, 8, 9, 10, 19)] == [
        None,
        None,
        0.9999**10,
        None,
        0.9999**10,
    ]
    assert config.precision == "bf16"  # A17
    assert not config.flip  # C1
    levels = noise_levels(config, 0)
    assert (levels.uniform_mass, levels.location, levels.scale, levels.pure_noise_mass) == (0.1, 0.0, 1.0, 0.0)  # C2
    assert code_dropout(config, 0) == 0.1  # C3
    assert config.stage == "mode_matching"
    assert 1_000_000 <= config.validate_every <= 2_000_000  # a validation costs seven GPUs their time


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_preset_has_settings(recipe: str, preset: str) -> None:
    config = RECIPES[recipe](preset)
    assert override(config, ["images=1280"]).images == 1280
    assert model_of(None, PRESETS[preset]()) == model_of("published", PRESETS[preset]()) == PRESETS[preset]()
    assert config.images % config.batch_size == 0


def test_mup_carries_the_exploratory_settings_to_the_large_model() -> None:
    """Tuned at 768: the encoder of FlowMo-Lo is as published, its wider decoder's hidden matrices learn slower."""
    config = model_of("mup", PRESETS["flowmo-lo"]())
    with torch.device("meta"):
        scales = learning_rate_scales(FlowMo(config))
    assert {scale for name, scale in scales.items() if name.startswith("encoder.")} == {1.0}
    assert scales["decoder.blocks.3.image_stream.qkv.weight"] == pytest.approx(768 / 1152)
    assert scales["decoder.readout.weight"] == 1.0
    own = override(PRESETS["flowmo-lo"](), ["decoder.base_width=256"])
    assert (model_of("mup", own).encoder.base_width, model_of("mup", own).decoder.base_width) == (768, 256)
    assert set(learning_rate_scales(FlowMo(PRESETS["tiny"]())).values()) == {1.0}
