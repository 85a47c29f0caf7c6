"""Named configurations: the paper's three (Table 6), our small ones, and a tiny one for tests."""

from __future__ import annotations

import math
from dataclasses import replace

from .config import FlowMoConfig, QuantizerConfig, SamplerConfig, TransformConfig, TransformerConfig
from .errors import ConfigError


def flowmo_lo() -> FlowMoConfig:
    """Return FlowMo-Lo, Table 6: 256 tokens x 18 bits, 0.070 bits per pixel, 945 M parameters as released.

    Expected on ImageNet validation (Table 1): rFID 0.95, PSNR 22.07 (pooled, E2), SSIM 0.649, LPIPS 0.113.
    """
    return FlowMoConfig(
        encoder=TransformerConfig(patch_size=4, width=768, depth=8, heads=12),
        decoder=TransformerConfig(patch_size=4, width=1152, depth=16, heads=12),
    )


def flowmo_hi() -> FlowMoConfig:
    """Return FlowMo-Hi, Table 6: 256 tokens x 56 bits, 0.219 bits per pixel, entropy in groups of 14 bits.

    Expected on ImageNet validation (Table 1): rFID 0.56, PSNR 24.93 (pooled, E2), SSIM 0.785, LPIPS 0.073.
    """
    return replace(flowmo_lo(), bits_per_token=56, bits_per_group=14)


def flowmo_fewer_params() -> FlowMoConfig:
    """Return the exploratory configuration of Tables 4 and 7: patch 8, width 768 on both sides, 517 M parameters."""
    return replace(
        flowmo_lo(),
        encoder=TransformerConfig(patch_size=8, width=768, depth=8, heads=12),
        decoder=TransformerConfig(patch_size=8, width=768, depth=16, heads=12),
    )


def flowmo_continuous() -> FlowMoConfig:
    """Return the model with the continuous latent of Table 3, beside DiTo.

    Its latent is 256 tokens x 16 numbers, normalised by LayerNorm without weights; there are no integer tokens.

    The paper's rFID is 0.65, its PSNR 26.61; how long it trained is not known (F6). Noise sync is a setting of the run:
    ``flowmo train DATA OUT --preset flowmo-continuous --set noise_sync=0.1``.
    """
    return replace(flowmo_lo(), bits_per_token=16, bits_per_group=16, quantizer=QuantizerConfig(kind="continuous"))


def flowmo_mini_64() -> FlowMoConfig:
    """Return a model for 64 x 64 pixels that a CPU trains in hours: 64 tokens x 18 bits (0.281 bits per pixel).

    Its tokens are learned from noise, as the paper's. Its four options differ from the paper's; docs/LOG.md says why.
    runs/stages_64.sh trains it.
    """
    return FlowMoConfig(
        encoder=TransformerConfig(patch_size=8, width=256, depth=3, heads=4),
        decoder=TransformerConfig(patch_size=8, width=256, depth=6, heads=4),
        image_size=64,
        num_tokens=64,
        prediction="clean",
        modulation="shared",
        initial_latent="learned",
        latent_positions="grid",
    )


def flowmo_mini_hi() -> FlowMoConfig:
    """Return a model of 28 M parameters at 256 x 256 with FlowMo-Hi's code: 256 tokens x 56 bits, 0.219 bits per pixel.

    Its tokens are learned from noise; :func:`flowmo_base` is what runs/release_256.sh trains. The options are those of
    :func:`flowmo_mini_64`.
    """
    return FlowMoConfig(
        encoder=TransformerConfig(patch_size=8, width=256, depth=4, heads=4),
        decoder=TransformerConfig(patch_size=8, width=384, depth=6, heads=6),
        bits_per_token=56,
        bits_per_group=14,
        prediction="clean",
        modulation="shared",
        initial_latent="learned",
        latent_positions="grid",
    )


def flowmo_mini_lo() -> FlowMoConfig:
    """Return :func:`flowmo_mini_hi` with FlowMo-Lo's code: 256 tokens x 18 bits, 0.070 bits per pixel.

    Entropy is in groups of 9 bits.
    """
    return replace(flowmo_mini_hi(), bits_per_token=18, bits_per_group=9)


def flowmo_mini() -> FlowMoConfig:
    """Return the packaged model for any size, at any rate up to 56 bits a token of 16 x 16 pixels (0.219 bits a pixel).

    It begins as a closed-form code (arch/transform.py), which ``flowmo fit-transform`` computes. One step of the
    sampler, no guidance.
    """
    return FlowMoConfig(
        encoder=TransformerConfig(patch_size=16, width=256, depth=4, heads=4),
        decoder=TransformerConfig(patch_size=8, width=256, depth=6, heads=4),
        bits_per_token=56,
        bits_per_group=1,
        sampler=SamplerConfig(num_steps=1, rho=math.inf, guidance_scale=1.0),
        prediction="clean",
        modulation="shared",
        latent_positions="patches",
        transform=TransformConfig(
            patch_size=16,
            rates=(9, 12, 18, 24, 32, 40, 48, 56),
        ),
    )


def flowmo_mini_8() -> FlowMoConfig:
    """Return :func:`flowmo_mini` for 64 x 64 pixels: tokens of 8 x 8 pixels and up to 18 bits (0.281 bits per pixel).

    It has 4.9 M parameters. The closed-form code of images of fewer than 128 pixels is of this kind.
    """
    small = flowmo_mini()
    assert small.transform is not None
    return replace(
        small,
        encoder=TransformerConfig(patch_size=8, width=192, depth=2, heads=3),
        decoder=TransformerConfig(patch_size=8, width=192, depth=5, heads=3),
        image_size=64,
        num_tokens=64,
        bits_per_token=18,
        transform=replace(small.transform, patch_size=8, class_bits=4, num_components=48, rates=(3, 6, 9, 12, 15, 18)),
    )


def flowmo_base() -> FlowMoConfig:
    """Return :func:`flowmo_mini` with 103 M parameters, for half an hour on one GPU (runs/release_256.sh)."""
    return replace(flowmo_mini(), decoder=TransformerConfig(patch_size=16, width=640, depth=10, heads=10))


def at_size(config: FlowMoConfig, side: int) -> FlowMoConfig:
    """Return the configuration for square images of another side, with as many tokens as those have."""
    return replace(config, image_size=side, num_tokens=config.tokens_of((side, side)))


def tiny() -> FlowMoConfig:
    """Return the model of the tests: 32 x 32 pixels, 16 tokens x 18 bits, a few hundred thousand parameters."""
    return FlowMoConfig(
        encoder=TransformerConfig(patch_size=8, width=64, depth=2, heads=2),
        decoder=TransformerConfig(patch_size=8, width=64, depth=2, heads=2),
        image_size=32,
        num_tokens=16,
    )


PRESETS = {
    "flowmo-lo": flowmo_lo,
    "flowmo-hi": flowmo_hi,
    "flowmo-fewer-params": flowmo_fewer_params,
    "flowmo-continuous": flowmo_continuous,
    "flowmo-mini-64": flowmo_mini_64,
    "flowmo-mini-hi": flowmo_mini_hi,
    "flowmo-mini-lo": flowmo_mini_lo,
    "flowmo-mini": flowmo_mini,
    "flowmo-mini-8": flowmo_mini_8,
    "flowmo-base": flowmo_base,
    "tiny": tiny,
}


def preset(name: str) -> FlowMoConfig:
    """Return the configuration of a name. Raises ConfigError for one that there is not."""
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]()
