"""``flowmo distill``: teaches a trained tokenizer's decoder to sample in one or a few unguided steps.

It takes many otherwise; the encoder, and so every token file, stays as it is. Samples are compared with those of a
frozen teacher, the model itself unless another is named, or with the images themselves (--set distill.target=image).
The new weights store their own sampler, so that they are fast wherever they are used. Validation, OUT/best.safetensors
and going on are as in flowmo posttrain.
"""

from __future__ import annotations

import argparse

from ..errors import ConfigError
from ..tokenizer import FlowMo
from ..training import DistillTrainConfig
from ..training.configuration.recipes import distillation
from ..training.configuration.settings import with_settings
from ..training.distillation import check_pair, student_of, teacher_of
from .arguments import decoder_runs, models
from .arguments.fields import add_flag
from .arguments.runs import tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    decoder_runs.add_arguments(parser)
    add_flag(
        parser,
        "--teacher",
        str,
        "whose samples are learned, with the same encoder (default: that of --init)",
        metavar="MODEL",
    )


def run(arguments: argparse.Namespace) -> int:
    if any(setting.startswith("stage=") and setting != "stage=distillation" for setting in arguments.set):
        raise ConfigError("flowmo distill runs the stage distillation only; use flowmo posttrain or train for others")
    config = with_settings(distillation(), arguments.set, tell)
    teacher = _teacher(arguments, config)

    def new_model() -> FlowMo:
        model = student_of(decoder_runs.load_init(arguments), config)
        if teacher is not None:
            check_pair(model, teacher)
        return model

    return decoder_runs.run_decoder(arguments, config, new_model, teacher)


def _teacher(arguments: argparse.Namespace, config: DistillTrainConfig) -> FlowMo | None:
    if config.distill.target == "image":
        if arguments.teacher:
            raise ConfigError("--teacher is of no use with distill.target=image; leave one of them out")
        return None
    if arguments.teacher is None:
        return teacher_of(decoder_runs.load_init(arguments), config)
    return teacher_of(models.load_options(arguments, device="cpu").load(arguments.teacher), config)
