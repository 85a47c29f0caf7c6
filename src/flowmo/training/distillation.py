"""Student and teacher of few-step decoding (O11): their samplers, and whether they belong together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..errors import ConfigError, WeightsError
from ..flow import function_evaluations
from ..tokenizer import FlowMo
from .configuration.config import DistillTrainConfig


def student_of(model: FlowMo, config: DistillTrainConfig) -> FlowMo:
    """Return the same model with the sampler that it is trained for stored: few steps, no guidance."""
    s = model.config.sampler
    rho = s.rho if config.sample.rho is None else config.sample.rho
    sampler = replace(s, num_steps=config.distill.steps[0], rho=rho, guidance_scale=1.0, solver="euler")
    model.config = replace(model.config, sampler=sampler)
    return model


def teacher_of(model: FlowMo, config: DistillTrainConfig) -> FlowMo:
    """Return the same model, frozen, with the sampler that makes its samples.

    Raises ConfigError for a sampler that takes no more passes than the student's.
    """
    d, s = config.distill, model.config.sampler
    given: dict[str, Any] = {
        "num_steps": d.teacher_steps,
        "rho": d.teacher_rho,
        "guidance_scale": d.teacher_guidance,
        "solver": d.teacher_solver,
    }
    sampler = replace(s, **{name: value for name, value in given.items() if value is not None})
    count, most = function_evaluations(sampler), max(d.steps)
    if count <= most:
        raise ConfigError(
            f"the teacher takes {count} pass{'es' * (count > 1)} (num_steps {sampler.num_steps}, guidance_scale "
            f"{sampler.guidance_scale:g}), no more than the student's {most}: there is nothing to learn from it. Set "
            "distill.teacher_steps and distill.teacher_guidance, or distill.target=image"
        )
    model.config = replace(model.config, sampler=sampler)
    return model.requires_grad_(False).eval()


def check_pair(student: FlowMo, teacher: FlowMo) -> None:
    """Raise WeightsError for a teacher with other tokens, or with images of another size."""
    ours, theirs = (f"{model.fingerprint():08x}" for model in (student, teacher))
    if ours != theirs:
        raise WeightsError(
            f"the teacher's tokens are others (fingerprint {theirs}) than those of the model to train ({ours}); give a "
            "teacher with the same encoder"
        )
    if student.config.image_size != teacher.config.image_size:
        raise WeightsError(
            f"the teacher decodes to {teacher.config.image_size} pixels, the model to train to "
            f"{student.config.image_size}; "
            "give a teacher of the same image_size"
        )
