"""Stage 2: the tokens that a generator is trained on, and the configuration that fits them (Section 3.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ... import config as configs
from ...errors import ConfigError, TrainingError
from ...generation import GeneratorConfig, read_generator_about
from ...generation.presets import preset as preset_of
from ...labels import check_same_classes
from ...quantize.groups import grouping
from .token_data import TokenSet, read_token_set


def data_and_config(
    shards: str, preset: str, settings: Sequence[str] = (), init: str | None = None, names: list[str] | None = None
) -> tuple[TokenSet, GeneratorConfig]:
    """Return the tokens of shards, and the configuration of the generator that a run on them starts from.

    That is a new generator, or the one of ``init``.

    settings: "name=value" of the preset. Which bits an integer has is that of ``grouping`` where they do not say it.
    init: a generator's file.
    names: of the labels.
    Raises ConfigError for a preset or a setting that there is not, TrainingError for a generator that does not fit the
    shards.
    """
    new_config = preset_of(preset)
    if init:
        if settings:
            raise ConfigError("--config cannot change the generator that --init loads")
        return _of_init(shards, init, names)
    data = read_token_set(shards, class_names=names)
    bits, order = grouping(data.layout.bits_per_token, data.layout.bits_per_group)
    new = replace(new_config(data.layout, data.num_classes), bits_per_group=bits, bit_order=order)
    config = configs.override(new, list(settings))
    if config.tokens != data.layout or config.num_classes < data.num_classes:
        raise ConfigError("tokens and num_classes are those of the shards; leave them out of --config")
    return replace(data, bits_per_group=config.bits_per_group, bit_order=config.bit_order), config


def held_out_data(shards: str, data: TokenSet, num_classes: int, named: bool = False) -> TokenSet:
    """Return the held-out tokens of shards, of the same tokenizer and classes as those to train on.

    num_classes: of the generator.
    named: whether the labels of ``data`` got other names than its shards have.
    Raises TrainingError or DataError for others.
    """
    held = read_token_set(shards, data.bits_per_group, bit_order=data.bit_order)
    if not named:
        check_same_classes(data.classes, held.classes, f"{shards} and the shards to train on")
    if held.layout != data.layout or held.num_classes > num_classes:
        raise TrainingError("the held-out tokens are of another tokenizer, or of more classes, than those to train on")
    return held


def _of_init(shards: str, init: str, names: list[str] | None) -> tuple[TokenSet, GeneratorConfig]:
    config, classes, _ = read_generator_about(init)
    data = read_token_set(shards, config.bits_per_group, names, config.bit_order)
    if data.layout != config.tokens:
        raise TrainingError(f"{init} was trained on tokens of another tokenizer than the shards hold")
    if data.classes != classes or data.num_classes > config.num_classes:
        raise TrainingError(
            f"{init} was trained on other classes than the shards name; where only the names differ, take "
            f"the generator's own: flowmo info {init} --json > names.json, then --class-names names.json"
        )
    return data, config
