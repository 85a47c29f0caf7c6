"""What a comparison is made of: one size of pictures, numbers of bytes, networks, and the coded files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from ..codec import check_image_size
from ..config import FlowMoConfig
from ..errors import ConfigError, WeightsError
from ..evaluation.protocols import STANDARD
from ..metrics.networks import Networks, WeightFiles, load_networks
from ..metrics.table import check_metrics, families, with_companions
from ..quantize.tokens import payload_size
from .codecs import Distance
from .compare import check_targets

ALWAYS = ("psnr", "ssim", "lpips_alex")
METRICS = tuple(name for name in families() if name not in (*ALWAYS, "code"))  # a codec has no code to look at
DEFAULT = ("lpips_vgg", "rfid", "kid", "fd_efflite0")


def common_size(configs: Iterable[FlowMoConfig], asked: tuple[int, int] | None) -> tuple[int, int]:
    """Return the (height, width) that is asked for, or that of the models.

    Raises ConfigError where no size is asked for and the models differ or there are none.
    Raises ImageError for a size that a model cannot take.
    """
    configs = list(configs)
    sizes = sorted({config.image_size for config in configs})
    if asked is None and len(sizes) != 1:
        between = f"the models take pictures of {sizes[0]} to {sizes[-1]} pixels" if sizes else "there is no model"
        raise ConfigError(f"{between}, so say the size of the pictures: --size")
    size = asked or (sizes[0], sizes[0])
    for config in configs:
        check_image_size(size, config)
    return size


def byte_targets(
    configs: Iterable[FlowMoConfig], size: tuple[int, int], asked: Sequence[int] | None
) -> tuple[int, ...]:
    """Return the numbers of bytes that are asked for, or those of the models at a size.

    Raises ConfigError for numbers that make no sense.
    """
    own = {payload_size(config.tokens_of(size), config.bits_per_token) for config in configs}
    targets = tuple(sorted(set(asked or own)))
    check_targets(targets, size[0] * size[1])
    return targets


def comparison_networks(
    metrics: Sequence[str],
    size: tuple[int, int],
    device: torch.device,
    files: WeightFiles,
    say: Callable[[str], None],
) -> Networks:
    """Return the networks of the metrics, and of LPIPS (Alex), by which files are chosen.

    Metrics whose weights are missing are left out and named to ``say``.
    Raises WeightsError where those of LPIPS (Alex) are missing.
    """
    names = with_companions([*ALWAYS, *metrics])
    networks = load_networks(check_metrics(names, 1), STANDARD.inception, min(size), device, files)
    if "lpips_alex" in networks.left_out:
        raise WeightsError(f"nothing can be compared without LPIPS (Alex): {networks.left_out['lpips_alex']}")
    for note in networks.notes():
        say(note)
    return networks


def nearest(alex: Distance, device: torch.device) -> Distance:
    """Return the distance that chooses among a codec's files: LPIPS (Alex) of images on the CPU, run on the device."""
    return lambda images, reference: alex(images.to(device), reference.to(device)).cpu()
