"""info, bench, and the help of every command."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pytest
import torch
from command_support import PAYLOAD, PICTURES, Command

import flowmo as package
from flowmo.cli.main import COMMANDS, build_parser, main
from flowmo.config import to_dict
from flowmo.generation import Generator
from flowmo.generation.config import GeneratorConfig
from flowmo.generation.files import save_generator
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.training import TrainConfig, TrainState, World
from flowmo.training.checkpoints.checkpoint import save_checkpoint
from flowmo.weights import load_model, official_layout


def test_info_of_a_model(flowmo: Command, weights: Path) -> None:
    model = load_model(weights)
    content = flowmo("info", weights, "--json", model=False).json
    assert content["parameters"]["total"] == sum(p.numel() for p in model.parameters())
    assert content["fingerprint"] == f"{model.fingerprint():08x}"
    assert content["bytes_per_image"] == PAYLOAD
    assert content["config"] == to_dict(tiny())
    assert content["about"] == {"images": 7}
    assert "fingerprint" in flowmo("info", weights, model=False).out


def test_info_of_a_preset_says_how_to_get_weights(flowmo: Command) -> None:
    content = flowmo("info", "flowmo-hi", "--json", model=False).json
    assert content["bits_per_image"] == 256 * 56
    assert "flowmo_hi.pth" in content["note"]


def test_info_of_token_files(flowmo: Command, weights: Path) -> None:
    flowmo("tokenize", *PICTURES[:2], "--out", "t")
    flowmo("tokenize", *PICTURES[:2], "--shard", "s.safetensors")
    expected = f"{load_model(weights).fingerprint():08x}"
    file = flowmo("info", f"t/{PICTURES[0].stem}.flowmo", "--json", model=False).json
    shard = flowmo("info", "s.safetensors", "--json", model=False).json
    for content in (file, shard):
        assert content["fingerprint"] == expected
        assert content["payload_bytes"] == PAYLOAD
        assert content["image_size"] == [32, 32]
    assert file["file_bytes"] == 24 + PAYLOAD
    assert shard["images"] == 2
    assert shard["images_per_label"] is None
    assert "32 x 32" in flowmo("info", "s.safetensors", model=False).out
    assert f"name one of its files, such as t/{min(path.name for path in Path('t').iterdir())}" in (
        flowmo("info", "t", model=False).err
    )


def test_info_of_a_run(flowmo: Command, weights: Path) -> None:
    Path("run").mkdir()
    assert flowmo("info", "run", model=False).code == 2
    state = TrainState.start(FlowMo(tiny()), TrainConfig())
    state.step, state.images_seen = 3, 96
    about = {"command": "flowmo train photos run", "code": {"flowmo": "0"}}
    save_checkpoint(Path("run"), state, TrainConfig(learning_rate=0.5), World(), about)
    content = flowmo("info", "run", "--json", model=False).json
    assert (content["newest"]["step"], content["newest"]["images_seen"]) == (3, 96)
    shutil.copy(weights, "run/model.safetensors")
    content = flowmo("info", "run", "--json", model=False).json
    newest = content["newest"]
    assert (newest["step"], newest["command"], newest["code"]) == (3, "flowmo train photos run", {"flowmo": "0"})
    assert newest["train_config"]["learning_rate"] == 0.5
    assert content["about"] == {"images": 7}
    part = Path("run/.checkpoint-0000000128.part")
    part.mkdir()  # being written by the run
    Path("run/checkpoint-0000000096/checkpoint.json").write_bytes(b"damaged")
    content = flowmo("info", "run", "--json", model=False).json
    assert "is damaged" in content["newest"]["note"]
    assert content["about"] == {"images": 7}
    assert part.exists()


def test_info_and_use_of_a_released_file(flowmo: Command) -> None:
    layout = official_layout(tiny())
    state = {key: torch.randn(slot.shape) * 0.02 for key, slot in layout.items()}
    torch.save({"total_steps": 1234, "model_state_dict": state, "model_ema_state_dict": state}, "x.pth")
    extra = ("--num-tokens", 16, "--image-size", 32)
    content = flowmo("info", "x.pth", *extra, "--json", model=False).json
    released = content["released"]
    assert released["total_steps"] == 1234
    assert released["keys"] == len(layout) == released["keys_used"] + len(released["keys_unused"])
    assert content["bits_per_image"] == 16 * 18
    for flags in ((), ("--raw-weights",)):
        out = ("--out", "o" + "".join(flags))
        assert flowmo("tokenize", PICTURES[0], "--model", "x.pth", *extra, *flags, *out, model=False).code == 0
    del state["decoder.img_in.bias"]
    torch.save({"model_ema_state_dict": state}, "x.pth")
    broken = flowmo("info", "x.pth", *extra, model=False)
    assert broken.code == 2
    assert "decoder.img_in.bias" in broken.err


@pytest.mark.parametrize(
    "name", ["missing.flowmo", "missing.pth", "no/such/thing", "no-such-name", "text.txt", "t.flowmo"]
)
def test_info_of_nothing(flowmo: Command, name: str) -> None:
    Path("text.txt").write_text("hello")
    Path("t.flowmo").write_text("hello")
    result = flowmo("info", name, model=False)
    assert result.code == 2
    assert name in result.err


def test_bench_decode(flowmo: Command) -> None:
    result = flowmo("bench", "decode", "--steps", 1, 4, "--repeats", 1, "--batch-size", 2, "--out", "b.json")
    assert result.code == 0
    content = json.loads(Path("b.json").read_text())
    assert [(r["num_steps"], r["guidance_scale"]) for r in content["rows"]] == [(1, 1.0), (4, 1.0), (25, 1.5)]
    assert [r["decoder_passes"] for r in content["rows"]] == [1, 4, 31]
    for row in content["rows"]:
        assert row["seconds"] > 0
        assert row["images_per_second"] == pytest.approx(2 / row["seconds"])
        assert row["seconds_per_decoder_pass"] == pytest.approx(row["seconds"] / row["decoder_passes"])
        assert row["peak_memory_mb"] > 50
    assert content["rows"][0]["seconds"] < content["rows"][2]["seconds"]
    assert content["machine"]["torch"] == torch.__version__
    assert content["machine"]["threads"] == torch.get_num_threads()
    found = {row["name"]: row for row in content["sampler_ablation"]["rows"]}
    assert content["sampler_ablation"]["sampler"]["num_steps"] == 4
    assert {"plain", "all", "all, weights in bf16"} < set(found)
    assert found["plain"]["ratio"] == 1
    assert all(0 < row["utilisation"] < 1.5 for row in found.values())
    assert "times plain" in result.out
    assert json.loads(flowmo("bench", "encode", "--repeats", 1, "--json").out)["what"] == "encode"
    again = flowmo("bench", "decode", "--out", "b.json")
    assert again.code == 2
    assert "--force" in again.err


def test_bench_encode_of_a_preset_without_weights(flowmo: Command) -> None:
    result = flowmo("bench", "encode", "--model", "tiny", "--dtype", "bf16", "--repeats", 1, model=False)
    assert result.code == 0
    assert "random weights" in result.out
    assert "images/s" in result.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_flag(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    subparsers = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    parser = subparsers.choices[name]
    assert parser.description
    for action in (action for action in parser._actions if action.help != argparse.SUPPRESS):  # which old names are
        assert action.help, action
        assert len(action.help.split()) >= 3, f"{action.option_strings} {action.help!r}"
        assert all(flag in shown for flag in action.option_strings)


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name}" in shown for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"flowmo {package.__version__}\n"


def test_info_says_that_tensors_were_not_read_and_verifies_them_on_request(flowmo: Command) -> None:
    Path("run").mkdir()
    state = TrainState.start(FlowMo(tiny()), TrainConfig())
    for state.images_seen in (32, 64):
        path = save_checkpoint(Path("run"), state, TrainConfig(), World(), {"model_config": to_dict(tiny())})
    for target, part in (("run", "newest"), (path, None)):
        content = flowmo("info", target, "--json", model=False).json
        assert (content[part] if part else content)["tensors"].startswith("not read; --verify")
        content = flowmo("info", target, "--verify", "--json", model=False).json
        assert (content[part] if part else content)["tensors"] == "as they were written"
    data = next(Path("run/checkpoint-0000000032").glob("__0_*"))
    data.write_bytes(data.read_bytes()[:-100] + bytes(100))
    assert flowmo("info", "run", model=False).code == 0
    result = flowmo("info", "run", "--verify", model=False)
    assert result.code == 2
    assert f"checkpoint-0000000032 is damaged: {data.name} is not as it was written" in result.err


def test_info_verifies_the_numbers_of_a_generator(flowmo: Command) -> None:
    save_generator(Generator(GeneratorConfig(64, 2, 2, 10)), Path("g.safetensors"))
    assert flowmo("info", "g.safetensors", "--verify", "--json", model=False).json["tensors"] == "all finite numbers"
    data = bytearray(Path("g.safetensors").read_bytes())
    data[-2:] = b"\x00\x7e"  # the last number, of half precision
    Path("g.safetensors").write_bytes(data)
    assert flowmo("info", "g.safetensors", "--json", model=False).json["tensors"].startswith("not read")
    result = flowmo("info", "g.safetensors", "--verify", model=False)
    assert result.code == 2
    assert "g.safetensors" in result.err
    assert "not finite" in result.err
