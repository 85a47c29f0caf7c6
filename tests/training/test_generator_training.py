"""Stage 2 trains: on tokens of real photographs it learns them and their classes; killed, resumed and spread over
processes it is the same run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from run_support import SELDOM, checkpoints_of, finish, kill, lines_of, log_of, start, start_several, wait_for_step
from token_support import coded

from flowmo.cli.main import main
from flowmo.codec import read_shard, write_shard
from flowmo.errors import ConfigError, TrainingError
from flowmo.generation import DecodeSettings, Generator, decode, load_generator
from flowmo.training import Run, World
from flowmo.training.checkpoints.checkpoint import read_checkpoint
from flowmo.training.data.generator_data import data_and_config
from flowmo.training.data.token_data import TokenLoader, TokenSet
from flowmo.training.generator import (
    GENERATOR,
    GeneratorStep,
    GeneratorTrainConfig,
    assemble_generator,
    held_out,
    published,
)

PIZZA, ALP = 95, 96
SETTINGS = {
    "images": 96,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "warmup_images": 16,
    "cooldown_images": 32,
    "log_steps": 1,
    "validate_every": 48,
    "checkpoint_minutes": 0,
    "keep": 20,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def shard(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs of pizzas and twelve of mountains."""
    path = tmp_path_factory.mktemp("tokens") / "two-classes.shard"
    write_shard(path, coded(shared / "data" / "tiny64", [PIZZA, ALP], ["pizza", "alp"], 12))
    return path


@pytest.fixture(scope="module")
def learned(shard: Path) -> tuple[Generator, TokenSet, GeneratorTrainConfig]:
    """A generator of a quarter of a million parameters after 400 small steps."""
    data, model = data_and_config(str(shard), "tiny")
    config = GeneratorTrainConfig(
        images=3200,
        batch_size=8,
        learning_rate=2e-3,
        warmup_images=400,
        cooldown_images=0,
        gradient_clip=1.0,
        precision="fp32",
    )
    torch.manual_seed(0)
    step, ready, state, meter = assemble_generator(Generator(model, data.classes), config, World())
    run = Run(shard.parent, config, step, GENERATOR, ready, state, meter=meter)
    for batch in TokenLoader(data, config.batch_size, config.seed):
        run.update(batch)
        if state.images_seen >= config.images:
            return step.model.eval(), data, config
    raise AssertionError


Learned = tuple[Generator, TokenSet, GeneratorTrainConfig]


def test_it_learns_tokens_and_classes(learned: Learned) -> None:
    """Cross-entropy far below that of even guesses and below that of the tokens' own frequencies; least with the right
    class, most with the wrong one."""
    model, data, config = learned
    tokens = data.rows(range(len(data)))[0].numpy()
    share = np.bincount(tokens.ravel(), minlength=512) / tokens.size
    frequencies = -(share[share > 0] * np.log(share[share > 0])).sum()
    result = held_out(model, data, config)
    assert result.validation < np.log(512) - 3
    assert result.validation < frequencies - 2
    assert result.validation + 0.03 < result.validation_no_class
    assert result.validation + 0.25 < result.validation_wrong_class


def test_samples_are_of_the_class_that_was_asked(learned: Learned) -> None:
    """The photograph with the most equal tokens is of that class."""
    model, data, _ = learned
    labels = torch.tensor([0, 1] * 10)
    settings = DecodeSettings(
        num_steps=12, temperature=0.7, final_temperature=0.3, choice_noise=1.0, guidance_scale=2.0
    )
    drawn = decode(model, labels, model.config.sequence_length, settings, range(20))
    equal = (drawn[:, None] == data.rows(range(len(data)))[0]).sum(-1)
    nearest = torch.from_numpy(data.labels)[equal.argmax(1)]
    assert int((nearest == labels).sum()) >= 16  # by chance: p < 0.006
    chance = (data.rows(range(len(data)))[0][:12, None] == data.rows(range(len(data)))[0][12:]).sum(-1).float()
    assert equal.max(1).values.float().mean() > 2 * chance.mean()  # and they are no mere noise


def command(shard: Path, out: Path, *more: str, **settings: object) -> list[str]:
    values = [f"{name}={value}" for name, value in (SETTINGS | settings).items()]
    return ["train-generator", str(shard), str(out), "--preset", "tiny", "--device", "cpu", *more, "--set", *values]


@pytest.fixture(scope="module")
def whole(shard: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main(command(shard, folder, "--tokenizer", "flowmo-mini")) == 0
    return folder


def test_a_generator_run_leaves_what_it_promises(whole: Path) -> None:
    log = log_of(whole)
    assert list(log) == list(range(1, 13))
    assert {"total", "cross_entropy", "accuracy", "masked", "gradient_norm", "lr"} <= set(log[1])
    assert {"images_per_s", "utilisation"} <= set(lines_of(whole)[0])
    looks = [line for line in lines_of(whole) if "validation" in line]
    assert [line["images"] for line in looks] == [48, 96]
    assert {"validation_no_class", "validation_wrong_class"} <= set(looks[0])
    assert [p.name for p in sorted((whole / "pictures").iterdir())] == ["0000000048.png", "0000000096.png"]
    model = load_generator(whole)
    assert model.classes == ["pizza", "alp"]
    with Image.open(whole / "pictures" / "0000000096.png") as sheet:
        assert sheet.size == (4 * 132 - 4, 4 * 150 - 4)  # four rows of four images of 128 pixels, each below its class
        strips = [np.asarray(sheet.convert("L").crop((x, 0, x + 128, 18))) for x in (0, 132)]
    shown = [Image.new("L", (128, 18), 255) for _ in strips]
    for strip, image, text in zip(strips, shown, ("0 pizza", "1 alp"), strict=True):
        ImageDraw.Draw(image).text((2, 9), text, 40, ImageFont.load_default(13), anchor="lm")
        assert np.abs(strip.astype(int) - np.asarray(image).astype(int)).max() <= 2
    assert model.config.tokens.num_tokens == 16
    assert (whole / "raw_before_cooldown.safetensors").is_file()


def test_killed_and_resumed_a_generator_is_the_same(shard: Path, whole: Path, tmp_path: Path) -> None:
    process = start(command(shard, tmp_path, images=96))
    wait_for_step(process, tmp_path, 3)
    kill(process)
    assert len(log_of(tmp_path)) < 12
    assert main(command(shard, tmp_path, **SELDOM)) == 0
    assert log_of(tmp_path) == log_of(whole)
    ours, theirs = load_generator(tmp_path), load_generator(whole)
    assert all(torch.equal(p, theirs.get_parameter(name)) for name, p in ours.named_parameters())


def test_a_run_of_before_goes_on(shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its checkpoint says nothing of the order of bits, of places or of drawing, which were one for all."""
    old = command(shard, tmp_path, "--config", "bit_order=published", **SELDOM)
    assert main([*old, "--time-limit", "0s"]) == 0
    first = log_of(tmp_path)[1]
    about = checkpoints_of(tmp_path)[-1] / "checkpoint.json"
    content = json.loads(about.read_text())
    del content["sha256"]  # its own checksum, which a manifest of that format did not have
    for name in ("bit_order", "place", "decoding"):
        del content["model_config"][name]
    about.write_text(json.dumps(content | {"format": "flowmo-checkpoint-2"}))
    assert main(old) == 0
    assert "resuming at 8 images" in capsys.readouterr().out
    assert log_of(tmp_path)[1] == first
    assert list(log_of(tmp_path)) == list(range(1, 13))


def test_how_tokens_are_drawn_keeps_no_run_from_going_on(shard: Path, tmp_path: Path) -> None:
    """The checkpoint's holds where the command says nothing of it, and else the command's."""
    first = tmp_path / "first"
    drawn = ("--config", "decoding.guidance_scale=3")
    assert main(command(shard, first, *drawn, images=8, cooldown_images=0, **SELDOM)) == 0
    resumed = ("--resume", str(checkpoints_of(first)[-1]), "--cooldown", "8")
    for name, more, guidance in (("kept", (), 3), ("changed", ("--config", "decoding.guidance_scale=4"), 4)):
        settings = SELDOM | {"images": 16, "cooldown_images": 0}
        assert main(command(shard, tmp_path / name, *more, *resumed, **settings)) == 0
        assert load_generator(tmp_path / name).config.decoding == DecodeSettings(guidance_scale=guidance)
        assert list(log_of(tmp_path / name)) == [2]
        assert (
            json.loads((tmp_path / name / "config.json").read_text())["model"]["decoding"]["guidance_scale"] == guidance
        )


def test_a_later_run_starts_from_the_weights_of_an_earlier_one(
    shard: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = whole / "raw_before_cooldown.safetensors"
    assert main(command(shard, tmp_path / "on", "--init", str(raw), images=8)) == 0
    assert log_of(tmp_path / "on")[1]["cross_entropy"] < log_of(whole)[1]["cross_entropy"] - 0.05
    other = tmp_path / "other.shard"
    write_shard(other, replace(read_shard(shard), classes=["margherita", "mountain"]))
    for path, more, said in (
        (other, ("--init", str(raw)), "trained on other classes than the shards name"),
        (shard, ("--init", str(raw), "--model", "width=32"), "cannot change the generator that --init loads"),
        (shard, ("--init", str(tmp_path / "none")), "no generator at"),
    ):
        assert main(command(path, tmp_path / "refused", *more)) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()
    assert main(["info", str(raw), "--json"]) == 0  # the way out that the refusal names
    (tmp_path / "names.json").write_text(capsys.readouterr().out)
    names = ("--init", str(raw), "--class-names", str(tmp_path / "names.json"))
    assert main(command(other, tmp_path / "renamed", *names, images=8)) == 0
    assert load_generator(tmp_path / "renamed").classes == ["pizza", "alp"]


def test_a_time_limit_stops_a_generator_with_a_checkpoint(
    shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shard.parent)
    assert main(command(Path(shard.name), tmp_path, "--time-limit", "0s")) == 0
    said = capsys.readouterr().out
    assert "time limit after 8 images" in said
    assert f"in {shard.name} of this folder" in said
    assert "good to look at (flowmo generate --generator) and to start other runs from (--init)" in said
    assert "make what it generates better" in said
    assert [p.name for p in checkpoints_of(tmp_path)] == ["checkpoint-0000000008"]


def test_two_processes_are_one_with_accumulation(shard: Path, tmp_path: Path) -> None:
    """By DDP and by FSDP2, and what they write is what one process goes on from."""
    runs = {"ddp": SELDOM | {"micro_batch": 4}, "fsdp": SELDOM | {"micro_batch": 4, "strategy": "fsdp"}}
    commands = [command(shard, tmp_path / name, **(settings | {"images": 32})) for name, settings in runs.items()]
    finish(start_several(commands, "--standalone", "--nproc-per-node", "2"), timeout=300)
    assert main(command(shard, tmp_path / "one", images=32, micro_batch=4, **SELDOM)) == 0
    names = ("total", "accuracy", "masked", "gradient_norm")
    expected = [[line[name] for name in names] for line in log_of(tmp_path / "one").values()]
    for name in runs:
        assert [[line[n] for n in names] for line in log_of(tmp_path / name).values()] == [
            pytest.approx(line, rel=1e-3, abs=1e-6) for line in expected
        ]
        state = assemble_generator(load_generator(tmp_path / name), GeneratorTrainConfig(), World()).state
        read_checkpoint(checkpoints_of(tmp_path / name)[-1], kind=GeneratorTrainConfig).restore(state, World())
        assert state.step == 4


@pytest.mark.parametrize(
    ("more", "settings", "said"),
    [
        ((), {"learning_rate": 2e-3}, "other settings (learning_rate: 0.001 there)"),
        (("--model", "width=32"), {}, "another generator"),
        (("--class-names", "names.txt"), {}, "another generator, or on shards of other tokens or classes"),
    ],
)
def test_another_run_in_the_folder_is_refused(
    more: tuple[str, ...],
    settings: dict,
    said: str,
    shard: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("margherita\nmountain\n")
    assert main(command(shard, whole, *more, **settings)) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "settings", "said"),
    [
        (("--model", "bits_per_group=7"), {}, "18 is not a multiple of bits_per_group 7"),
        (("--model", "num_classes=1"), {}, "num_classes are those of the shards"),
        (("--model", "widht=3"), {}, "did you mean 'width'"),
        ((), {"label_dropout": 1}, "label_dropout"),
        ((), {"mask_schedule": "square"}, "mask_schedule must be one of arccos, cosine, linear"),
        ((), {"flip": "true"}, "unknown setting 'flip'"),
        ((), {"micro_batch": 3}, "cannot be split"),
        (("--class-names", "one.txt"), {}, "1 names of classes do not fit labels up to 1"),
        (("--tokenizer", "other.safetensors"), {}, "give the tokenizer that made its shards"),
    ],
)
def test_wrong_use_of_train_generator(
    more: tuple[str, ...],
    settings: dict,
    said: str,
    shard: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lively: Callable,
) -> None:
    from flowmo.presets import tiny as tiny_tokenizer
    from flowmo.tokenizer import FlowMo
    from flowmo.weights import save_model

    monkeypatch.chdir(tmp_path)
    Path("one.txt").write_text("pizza\n")
    save_model(lively(FlowMo(tiny_tokenizer())), "other.safetensors")
    assert main(command(shard, tmp_path / "out", *more, **settings)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_tokenizers_run_is_no_generators(
    shard: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TrainingError, match="trains a generator, not a tokenizer"):
        read_checkpoint(checkpoints_of(whole)[-1])
    assert main(["info", str(whole)]) == 0
    shown = capsys.readouterr().out
    assert "pizza" in shown
    assert "label dropout" in shown


def test_other_group_sizes_and_dry_run(shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(shard, tmp_path / "out", "--model", "bits_per_group=6", "--dry-run")) == 0
    shown = capsys.readouterr().out
    assert '"bits_per_group": 6' in shown
    assert '"label_dropout": 0.1' in shown
    assert not (tmp_path / "out").exists()
    assert main(command(shard, tmp_path / "six", "--model", "bits_per_group=6", "width=32", images=8)) == 0
    assert load_generator(tmp_path / "six").config.sequence_length == 48


def test_the_published_settings_of_stage_2() -> None:
    config = published()
    assert config.images / 1_281_167 == pytest.approx(300, abs=1e-4)
    assert (config.batch_size, config.learning_rate, config.label_dropout) == (128, 1e-4, 0.1)
    assert config.micro_batches(8) == 1
    assert 1_000_000 <= config.validate_every <= 2_000_000
    with pytest.raises(ConfigError, match="label_smoothing"):
        GeneratorTrainConfig(label_smoothing=1)


def test_recomputed_blocks_change_nothing(shard: Path, tmp_path: Path) -> None:
    """Long skips included: a block that reads an earlier one is computed again from both."""
    data, model = data_and_config(str(shard), "tiny")
    batch = next(iter(TokenLoader(data, 8, 0)))
    gradients = []
    for recompute in (False, True, 0.5):
        torch.manual_seed(0)
        config = GeneratorTrainConfig(recompute_blocks=recompute, precision="fp32")
        step, ready, _, _ = assemble_generator(Generator(replace(model, depth=4)), config, World())
        ready(batch, torch.Generator().manual_seed(3), 0).total.backward()
        gradients.append({name: p.grad for name, p in step.model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None
        for other in gradients[1:]:
            assert torch.allclose(gradient, other[name], rtol=1e-5, atol=1e-8), name


def test_label_dropout_and_smoothing_reach_the_loss(shard: Path) -> None:
    data, config = data_and_config(str(shard), "tiny")
    batch = next(iter(TokenLoader(data, 8, 0)))
    torch.manual_seed(0)
    model = Generator(config)
    with torch.no_grad():
        model.class_embedding.weight.mul_(100)

    def loss(**settings: float) -> float:
        step = GeneratorStep(model, GeneratorTrainConfig(**settings))  # type: ignore[arg-type]
        return step(batch, torch.Generator().manual_seed(3), 0).total.item()

    assert len({loss(), loss(label_dropout=0.9), loss(label_smoothing=0.2)}) == 3
