"""Plans of runs that train the decoder of a finished tokenizer: Stage 1B and few-step decoding (Section 3.3; O11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..config import to_dict
from ..errors import TrainingError, WeightsError
from ..provenance import weights_checksum
from ..tokenizer import FlowMo
from .checkpoints.checkpoint import Checkpoint
from .configuration.config import DistillTrainConfig, PostTrainConfig
from .plan import MakeValidation, MeasureCost, TokenizerPlan


def decoder_plan(
    config: PostTrainConfig | DistillTrainConfig,
    new_model: Callable[[], FlowMo],
    network: tuple[nn.Module, dict[str, Any]],
    teacher: FlowMo | None = None,
    validation: MakeValidation | None = None,
    cost: MeasureCost | None = None,
) -> TokenizerPlan:
    """Return the plan of such a run, which goes on only from checkpoints of the same weights and teacher.

    new_model: gives the tokenizer that the run begins with; it is asked again on resume, for its weights, and those
    that are gone by then are no longer needed.
    network: d_perc and what checkpoints say of it, as ``perceptual.load_distance`` gives them.
    teacher: of distillation, on the CPU.
    """
    distance, described = network
    about: dict[str, Any] = {"sample_network": described}
    if teacher is not None:
        about["teacher"] = {"sha256": weights_checksum(teacher), "sampler": to_dict(teacher.config.sampler)}

    def begin() -> FlowMo:
        model = new_model()
        side = model.config.image_size
        distance(*torch.zeros(2, 1, 3, side, side))  # tells early that images are too small for it
        about["init"] = weights_checksum(model)
        return model

    def fits(checkpoint: Checkpoint) -> bool:
        if checkpoint.about.get("teacher") != about.get("teacher"):
            raise TrainingError(
                f"{checkpoint.path} is of a run with another teacher, or another sampler of its teacher; give that "
                "run's teacher and settings, or another folder"
            )
        about["init"] = checkpoint.about.get("init")
        try:
            return weights_checksum(new_model()) == about["init"]
        except WeightsError:
            return True

    return TokenizerPlan(config, begin, validation, fits, about, cost, perceptual=distance, teacher=teacher)


def in_words(plan: TokenizerPlan) -> dict[str, str]:
    """Return what a decoder is trained by: the network of d_perc, and the teacher where there is one."""
    network = plan.about["sample_network"]
    side = f" at {network['side']} px" if "side" in network else ""
    lpips = f" + {network['lpips_weight']:g} LPIPS (VGG)" if "lpips_weight" in network else ""
    found = {"network": f"{network['name']}{side}{lpips} (sha256 {network['sha256'][:8]})"}
    if plan.teacher is not None:
        s = plan.teacher.config.sampler
        found["teacher"] = (
            f"sha256 {plan.about['teacher']['sha256'][:8]}, {s.num_steps} steps, rho {s.rho:g}, guidance "
            f"{s.guidance_scale:g}"
        )
    return found
