"""Whole settings by name: what the released weights were trained with, and the same carried to any width by muP.

``flowmo train --recipe NAME`` starts from them; ``--set`` and ``--model`` change single ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...config import FlowMoConfig, TransformerConfig
from ...errors import ConfigError
from ...stages import SampleDistanceConfig, SampleLossConfig
from .config import DistillTrainConfig, PostTrainConfig, TrainConfig

BATCH = 128  # two micro-batches of 8 on each of 8 GPUs (A13)
POST_BATCH = 64
STEPS = {"flowmo-lo": 1_300_000, "flowmo-hi": 800_000}
EXPLORATORY_STEPS = 400_000  # 40 epochs of ImageNet (Table 6)
FREEZE_AFTER_STEPS = 200_000
EXPLORATORY_WIDTH = 768
RECOMPUTED = 1 / 8  # of the blocks, in the backward pass
VALIDATE = BATCH * 10_000  # images between validations, 130 of them for FlowMo-Lo


def published(preset: str) -> TrainConfig:
    """Return Stage 1A as the released FlowMo-Lo and FlowMo-Hi were trained (A1-A18, C1-C3).

    It runs on any number of processes that divides 16; other presets run as long as the paper's exploratory one.

    Constant rate without warm-up, cool-down or clipping (A12); codebook entropy over the 8 images of a micro-batch
    (A7); the encoder frozen and the optimizer built anew after 200,000 steps (A14); an average of decay 0.9999^10 every
    ten steps (A16). Not taken over, since it came of how runs were restarted: moments and averages that begin anew at
    each launch (A14, A16), images drawn with replacement (A18).

    It fits GPUs of 80 GB with a tenth to spare (67.1 GiB): the first eighth of the blocks is recomputed in the backward
    pass, three of FlowMo-Lo's, all of them the encoder's. ``flowmo bench train`` then estimates 65.2 GiB a GPU for
    FlowMo-Lo and FlowMo-Hi, and 69.1 without; 57.7 once the encoder is frozen, and then nothing is recomputed.
    """
    return TrainConfig(
        images=BATCH * STEPS.get(preset, EXPLORATORY_STEPS),
        batch_size=BATCH,
        micro_batch=8,
        learning_rate=1e-4,
        betas=(0.9, 0.95),
        warmup_images=0,
        cooldown_images=0,
        freeze_encoder_after=BATCH * FREEZE_AFTER_STEPS,
        entropy_over="micro_batch",
        ema_decay=0.9999,
        ema_every=10,
        precision="bf16",
        tf32=True,
        recompute_blocks=RECOMPUTED,
        validate_every=VALIDATE,
    )


def post_training() -> PostTrainConfig:
    """Return Stage 1B for a short run on one device.

    It has half the batch and rate of such a Stage 1A, in two micro-batches, with warm-up and cool-down.
    """
    return PostTrainConfig(
        images=100_000,
        batch_size=16,
        micro_batch=8,
        learning_rate=5e-5,
        warmup_images=1_000,
        cooldown_images=25_000,
        validate_every=10_000,
    )


def distillation() -> DistillTrainConfig:
    """Return few-step decoding in a short run on one device (O11).

    It has post-training's batch, and compares by squared error and LPIPS (VGG).
    """
    return DistillTrainConfig(
        images=100_000,
        batch_size=16,
        micro_batch=8,
        learning_rate=1e-4,
        warmup_images=1_000,
        cooldown_images=25_000,
        validate_every=10_000,
        sample=SampleDistanceConfig(weight=1.0, network="lpips_vgg"),
    )


def published_post_training() -> PostTrainConfig:
    """Return Stage 1B as released (D1-D6).

    It is 25,000 steps of 64 images, in two micro-batches of 4 on each of 8 GPUs, from raw weights with fresh moments,
    with the logits of ResNet-50, validated every 5,000 steps. The rest is Stage 1A's.
    """
    return PostTrainConfig(
        images=POST_BATCH * 25_000,
        batch_size=POST_BATCH,
        micro_batch=4,
        learning_rate=5e-5,
        betas=(0.9, 0.95),
        warmup_images=0,
        cooldown_images=0,
        entropy_over="micro_batch",
        ema_decay=0.9999,
        ema_every=10,
        precision="bf16",
        tf32=True,
        sample=SampleLossConfig(network="resnet50"),
        validate_every=POST_BATCH * 5_000,
    )


def mup(preset: str) -> TrainConfig:
    """Return Stage 1A as the paper says: settings of the exploratory configuration, "mu-transferred" to other widths.

    See Section 4.1 and A.1. The settings are the published ones; :func:`model_of` makes the model follow its width
    (B1).
    """
    return published(preset)


def model_of(recipe: str | None, config: FlowMoConfig) -> FlowMoConfig:
    """Return the model as a recipe wants it: for ``mup``, a side without a base width gets the exploratory one."""
    if recipe != "mup":
        return config

    def based(c: TransformerConfig) -> TransformerConfig:
        return replace(c, base_width=c.base_width or EXPLORATORY_WIDTH)

    return replace(config, encoder=based(config.encoder), decoder=based(config.decoder))


def check_weights(recipe: str | None, config: FlowMoConfig) -> None:
    """Raise ConfigError where a recipe would make another function of stored weights.

    A base width is part of a model from its beginning.
    """
    wanted = model_of(recipe, config)
    for stored, asked in ((config.encoder, wanted.encoder), (config.decoder, wanted.decoder)):
        if stored.width_multiplier != asked.width_multiplier:
            raise ConfigError(
                f"--recipe {recipe} cannot give a base width (muP) to weights that were trained without one; use "
                "--recipe published, or train a new model"
            )


RECIPES: dict[str, Callable[[str], TrainConfig]] = {"mup": mup, "published": published}
