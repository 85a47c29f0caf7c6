"""One meaning for a flag in every command, old names that keep working, and settings that are misspelt."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowmo.cli.arguments.flags import move_model_settings
from flowmo.cli.main import build_parser, main
from flowmo.config import override
from flowmo.errors import ConfigError
from flowmo.presets import tiny
from flowmo.training import TrainConfig

BUILT = build_parser()


def parsers(parser: argparse.ArgumentParser, name: str = "flowmo") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner, each in action.choices.items():
                yield from parsers(each, f"{name} {inner}")


ALL = dict(parsers(BUILT))


def shown(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {
        name: action for action in parser._actions if action.help != argparse.SUPPRESS for name in action.option_strings
    }


@pytest.mark.parametrize("name", ALL)
def test_flags_mean_one_thing(name: str) -> None:
    flags = shown(ALL[name])
    assert not {"--limit", "-n", "--models", "--raw-weights", "--num-tokens", "--bits-per-group"} & set(flags)
    assert ("--out" in flags) == ("-o" in flags)
    if "--out" in flags:
        assert flags["--out"] is flags["-o"]
    if "--model" in flags:
        assert "NAME=VALUE" not in str(flags["--model"].metavar)
    if "--config" in flags:
        assert flags["--config"].metavar == "NAME=VALUE"
    if "--steps" in flags:
        assert "of the decoder" in str(flags["--steps"].help) or "bench" in name or "figure" in name
    if "--count" in flags:
        assert "picture" in str(flags["--count"].help) or "image" in str(flags["--count"].help)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("evaluate m d --limit 3", "evaluate m d --count 3"),
        ("tokenize d --limit 3 --out a.shard", "tokenize d --count 3 -o a.shard"),
        ("compare d --limit 3 --models a b", "compare d --count 3 --model a b"),
        ("gallery d --limit 3 --models a", "gallery d --count 3 --model a"),
        ("generate -n 3 --steps 4", "generate --count 3 --mask-steps 4"),
        ("train d o --model decoder.depth=3", "train d o --config decoder.depth=3"),
        ("train d o --model decoder.depth=3", "train d o --set model.decoder.depth=3"),
        ("train-generator d o --model depth=4", "train-generator d o --config depth=4"),
        ("bench train --model decoder.depth=3", "bench train --config decoder.depth=3"),
        ("coordinate-check --steps 4 --model decoder.depth=3", "coordinate-check --updates 4 --config decoder.depth=3"),
        (
            "distill d o --init a --check-count 2 --check-skip 3",
            "distill d o --init a --validation-count 2 --validation-skip 3",
        ),
        ("info a.pth --raw-weights --num-tokens 64", "info a.pth --pth raw=true num_tokens=64"),
        (
            "tokenize d --model a.pth --image-size 128 --bits-per-group 6",
            "tokenize d --model a.pth --pth image_size=128 bits_per_group=6",
        ),
    ],
)
def test_old_names_parse_to_the_same(old: str, new: str) -> None:
    found = []
    for text in (old, new):
        arguments = BUILT.parse_args(text.split())
        move_model_settings(arguments)
        found.append({name: value for name, value in vars(arguments).items() if name != "pth"})
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("evaluate no-model no-data --limit=3", "note: --limit is now --count\n"),
        ("train no-data o --model decoder.depth=3 --dry-run", "note: --model is now --config\n"),
        ("info no.pth --num-tokens 3", "note: --num-tokens is now --pth num_tokens=...\n"),
        (
            "posttrain no-data o --init no-model --check-count 3 --dry-run",
            "note: --check-count is now --validation-count\n",
        ),
        ("train no-data o --preset tiny --set check_images=3 --dry-run", "note: check_images is now validate_every\n"),
        ("bench encode --model no-model", None),
        ("bench encode --model no-model --raw-weights", "note: --raw-weights is now --pth raw=...\n"),
        ("evaluate no-model no-data --count 3", None),
    ],
)
def test_a_line_tells_the_new_name(words: str, said: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    main(words.split())
    error = capsys.readouterr().err
    assert "note:" not in error if said is None else error.startswith(said) and error.count("note:") == 1


@pytest.mark.parametrize("given", ["tokens=3", "num_tokens=x", "num_tokens=0", "raw=maybe", "num_tokens"])
def test_settings_of_a_released_file_are_checked(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "a.pth", "--pth", given]) == 2
    assert f"--pth {given.partition('=')[0]}" in capsys.readouterr().err


def test_they_are_for_released_files_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--pth", "num_tokens=3"]) == 2
    assert "--pth is for released .pth files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr", "learning_rate"),
        ("max_lr", "learning_rate"),
        ("bs", "batch_size"),
        ("grad_clip", "gradient_clip"),
        ("max_grad_norm", "gradient_clip"),
        ("gradient_accumulation_steps", "micro_batch"),
        ("warmup", "warmup_images"),
        ("steps", "images"),
        ("epochs", "images"),
        ("ema", "ema_horizon"),
        ("amp", "precision"),
        ("gradient_checkpointing", "recompute_blocks"),
        ("num_workers", "workers"),
        ("resolution", "crop_size"),
        ("learning_rte", "learning_rate"),
    ],
)
def test_a_misspelt_setting_suggests_the_likely_one(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown setting '{typed}'; did you mean '{meant}'"):
        override(TrainConfig(), [f"{typed}=1"])


@pytest.mark.parametrize(("typed", "meant"), [("encoder.dim", "encoder.width"), ("encoder.layers", "encoder.depth")])
def test_those_of_a_model_too(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{meant}'"):
        override(tiny(), [f"{typed}=1"])


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e6", 10**6), ("1_000", 1000), ("1_000_000", 10**6), ("2.5e3", 2500), ("7", 7), ("1E3", 1000)],
)
def test_whole_numbers_as_people_write_them(text: str, number: int) -> None:
    images = override(TrainConfig(), [f"images={text}"]).images
    assert images == number
    assert isinstance(images, int)


@pytest.mark.parametrize("text", ["1.5", "1e-3", "nan", "inf", "1__0x", "_1", "1e400", "[" * 5000])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(ConfigError, match="images"):
        override(TrainConfig(), [f"images={text}"])


@pytest.mark.parametrize("setting", ["learning_rate=nan", "learning_rate=NaN", "ema_horizon=nan"])
def test_no_number_is_no_setting(setting: str) -> None:
    with pytest.raises(ConfigError):
        override(TrainConfig(), [setting])


def test_generating_without_a_class_says_what_it_is_about_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.npz").touch()  # so that it stops before it draws
    assert main(["generate", "--count", "3", "--npz", str(tmp_path / "a.npz"), "--no-pictures"]) == 2
    assert "no --class was given: 3 of each of 100 classes, 300 images" in capsys.readouterr().err


def test_settings_given_in_several_flags_all_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--set", "images=8", "--config", "num_tokens=16", "--set", "batch_size=4", "--config", "bits_per_token=18"]
    assert main(["train", "photos", str(tmp_path), "--preset", "tiny", *given, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert '"images": 8,' in said
    assert '"batch_size": 4,' in said
    assert '"num_tokens": 16,' in said
