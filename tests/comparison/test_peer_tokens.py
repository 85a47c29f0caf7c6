"""Other people's tokens become a shard, a generator is trained over them, and what it makes is decoded (Table 2)."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_peers import FAMILIES, small
from test_peers_golden import fill
from torch import Tensor

import warm_python
from flowmo import samples
from flowmo.cli.main import main
from flowmo.codec import Shard, read_shard, write_shard
from flowmo.coding import data_set, shards
from flowmo.comparison.peers.tokenizer import PeerTokenizer, open_tokenizer
from flowmo.data import fit_image, open_images, to_image, to_tensor
from flowmo.errors import ConfigError, TokenFileError
from flowmo.generation import DecodeSettings, GeneratorConfig, TokenLayout, generate, image_seed, load_generator
from flowmo.presets import tiny
from flowmo.quantize.tokens import Tokens
from flowmo.tokenizer import FlowMo
from flowmo.training.data.token_data import read_token_set
from flowmo.training.generator import GeneratorTrainConfig, held_out
from flowmo.weights import save_model

STEPS = [
    "images=1280",
    "batch_size=16",
    "learning_rate=3e-3",
    "warmup_images=64",
    "cooldown_images=0",
    "precision=fp32",
]
CPU = ["--device", "cpu"]


def spec_of(name: str, folder: Path) -> str:
    """A small tokenizer of that family in a file."""
    torch.save(small(name).parts.state_dict(), folder / f"{name}.bin")
    return f"{name}={folder / f'{name}.bin'}"


@pytest.fixture
def spec(tmp_path: Path) -> str:
    """A small MaskBit of 5 bits a token and a quarter of the side."""
    return spec_of("maskbit-18", tmp_path)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """The photographs that come with the package, in folders of two classes."""
    for i, path in enumerate(samples.paths()):
        folder = tmp_path / "data" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            picture.save(folder / f"{path.stem}.png")
    return tmp_path / "data"


def tokenized(data: Path, spec: str, size: int, shard: Path, *more: str) -> int:
    peer = ["--peer", spec, "--peer-size", str(size), *CPU]
    return main(["tokenize", str(data), "--labels", *peer, "--out", str(shard), *more])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def from_photographs_to_images(data: Path, spec: str, size: int, folder: Path, *config: str) -> None:
    """Photographs -> shard -> generator that knows more than to guess -> images of the right size, each what the
    tokenizer makes of the generator's tokens."""
    shard, run, out = folder / "tokens.shard", folder / "run", folder / "out"
    name = spec.partition("=")[0]
    assert tokenized(data, spec, size, shard) == 0
    written, tokenizer = read_shard(shard), open_tokenizer(spec, size)
    assert (written.tokenizer, written.fingerprint) == (name, tokenizer.fingerprint())
    first = next(path for path in sorted(data.rglob("*.png")))
    image = to_tensor(fit_image(Image.open(first), size, size))[None]
    assert written.tokens[0].indices.eq(tokenizer.tokenize(image).indices).float().mean() > 0.9  # roundings in a batch

    shown = folder / "shown"
    assert main(["detokenize", str(shard), "--peer", spec, "--out", str(shown), "--batch-size", "1", *CPU]) == 0
    expected = to_image(tokenizer.detokenize(written.tokens[0])[0])
    assert np.abs(pixels(shown / "a" / first.name).astype(int) - np.asarray(expected)).max() <= 1

    command = ["train-generator", str(shard), str(run), "--preset", "tiny", "--set", *STEPS, "--peer", spec, *CPU]
    assert main([*command, *(["--config", *config] if config else [])]) == 0
    generator = load_generator(run)
    assert generator.config.tokens.tokenizer == name
    assert (run / "validation").is_dir() or list(run.rglob("*.png")), "no samples were decoded while it trained"
    loss = held_out(generator, read_token_set(shard, generator.config.bits_per_group), GeneratorTrainConfig())
    assert loss.validation < 0.9 * math.log(generator.config.vocabulary)

    command = ["generate", "--generator", str(run), "--peer", spec, "--count", "2", "--out", str(out), *CPU]
    assert main([*command, "--mask-steps", "2"]) == 0
    seeds = [image_seed(0, 1)]
    tokens = next(generate(generator, [1], DecodeSettings(num_steps=2), seeds))
    image = np.asarray(to_image(tokenizer.detokenize(tokens)[0]))
    found = pixels(out / "0001-b-0000.png")
    assert found.shape == (size, size, 3)
    assert np.abs(found.astype(int) - image).max() <= 1


@pytest.mark.parametrize("name", FAMILIES)
def test_a_generator_over_the_tokens_of_each_kind(name: str, photographs: Path, tmp_path: Path) -> None:
    from_photographs_to_images(photographs, spec_of(name, tmp_path), small(name).size, tmp_path)


def test_a_generator_over_open_magvit2(shared: Path, photographs: Path, tmp_path: Path) -> None:
    """Table 2's first row: the authors' network in its size, 18 bits a token as two integers of 9."""
    facts = shared / "golden" / "peers" / "open_magvit2_16.json"
    if not facts.is_file():
        pytest.skip(f"needs the vectors at {facts}")
    path = tmp_path / "imagenet_256_L.ckpt"
    torch.save({"state_dict": fill(json.loads(facts.read_text()))}, path)
    from_photographs_to_images(photographs, f"open-magvit2={path}", 32, tmp_path, "bits_per_group=9")
    config = load_generator(tmp_path / "run").config
    assert (config.tokens.bits_per_token, config.bits_per_group, config.sequence_length) == (18, 9, 2 * 2 * 2)


def test_integers_without_a_code_are_never_made(tmp_path: Path) -> None:
    """64,000 codes in 16 bits: a generator has as many values, and parts of a token are refused."""
    layout = TokenLayout("00000000", 4, 16, 16, (16, 16), "cosmos-di8", 64_000)
    config = GeneratorConfig(32, 2, 2, 2, bits_per_group=16, tokens=layout)
    assert config.vocabulary == 64_000
    with pytest.raises(ConfigError, match="bits_per_group=16"):
        GeneratorConfig(32, 2, 2, 2, bits_per_group=8, tokens=layout)
    with pytest.raises(ConfigError, match="num_codes"):
        TokenLayout("00000000", 4, 16, 8, (16, 16), "cosmos-di8", 64_000)
    tokens = Tokens(torch.full((1, 4, 1), 64_000), 16, (16, 16))
    with pytest.raises(ConfigError, match="a token is 64000, but there are 64000 codes"):
        Shard(tokens, ["a"], None, 0, "crop", None, None, "cosmos-di8", 64_000)
    shard = Shard(Tokens(tokens.indices - 1, 16, (16, 16)), ["a"], None, 0, "crop", None, None, "cosmos-di8", 64_000)
    write_shard(tmp_path / "s.shard", shard)
    assert (read_shard(tmp_path / "s.shard").tokenizer, read_shard(tmp_path / "s.shard").num_codes) == (
        "cosmos-di8",
        64_000,
    )


def test_its_shard_is_refused_by_any_other_tokenizer(
    spec: str, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard, out = tmp_path / "tokens.shard", ["--out", str(tmp_path / "out"), *CPU]
    assert tokenized(photographs, spec, 16, shard) == 0
    own = open_tokenizer(spec, 16).fingerprint()
    with pytest.raises(TokenFileError, match=rf"another tokenizer, maskbit-18.*{own:08x}.*--peer maskbit-18=WEIGHTS"):
        read_shard(shard, own + 1)
    other = small("maskbit-18").parts
    with torch.no_grad():
        next(other.parameters()).add_(1)
    torch.save(other.state_dict(), tmp_path / "other.bin")
    model = tmp_path / "model.safetensors"
    save_model(FlowMo(tiny()), model)
    wrong = (["--peer", f"maskbit-18={tmp_path / 'other.bin'}"], ["--model", str(model)], [])
    for tokenizer in wrong:
        capsys.readouterr()
        assert main(["detokenize", str(shard), *tokenizer, *out]) == 1
        said = capsys.readouterr().err
        assert f"made by another tokenizer, maskbit-18: the tokens carry the checksum {own:08x}" in said
    assert not list(tmp_path.glob("out/**/*.png"))

    run = str(tmp_path / "run")
    train = ["train-generator", str(shard), run, "--preset", "tiny", "--set", "images=16", "batch_size=16", *CPU]
    assert main([*train, *wrong[0]]) == 2
    assert main(train) == 0
    capsys.readouterr()
    for tokenizer in (wrong[0], ["--tokenizer", str(model)]):
        assert main(["generate", "--generator", run, *tokenizer, "--count", "1", *out]) == 2
        assert f"maskbit-18 {own:08x}" in capsys.readouterr().err
    assert main(["info", str(shard)]) == 0
    assert "maskbit-18" in capsys.readouterr().out


def test_our_tokens_are_refused_by_another_tokenizer(spec: str, photographs: Path, tmp_path: Path) -> None:
    model, shard = tmp_path / "model.safetensors", tmp_path / "ours.shard"
    save_model(FlowMo(tiny()), model)
    assert main(["tokenize", str(photographs), "--model", str(model), "--out", str(shard), *CPU]) == 0
    assert read_shard(shard).tokenizer is None
    assert main(["detokenize", str(shard), "--peer", spec, "--out", str(tmp_path / "out"), *CPU]) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "files"], "--peer is for a shard of a data set"),
        (["--out", "s.shard", "--size", "16"], "leave out --size"),
        (["--out", "s.shard", "--bits-per-token", "2"], "leave out --bits-per-token"),
        (["--out", "s.shard", "--precision", "bf16"], "leave out --precision"),
        (["--out", "s.shard", "--model", "tiny"], "either --model or --peer"),
        (["--out", "s.shard", "--peer-size", "18"], "multiples of 4"),
        (["--out", "s.shard", "--peer", "cosmos-ci8=encoder.jit"], "cosmos-ci8 has a continuous latent and no tokens"),
        (["--out", "s.shard", "--peer", "vae=diffusers:folder"], "--peers list"),
        (["--out", "s.shard", "--peer", "open-magvit2=missing.ckpt"], "there is no file missing.ckpt"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    arguments: list[str],
    said: str,
    spec: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shards, "code_data_set", lambda *a, **k: pytest.fail("work was begun"))
    assert main(["tokenize", str(samples.paths()[0].parent), "--peer", spec, *CPU, *arguments]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["maskbit-18.bin"]


def test_weights_of_a_continuous_tokenizer_are_told(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = small("cosmos-di8").parts.state_dict()
    state |= {"quant_conv.weight": torch.zeros(16, 16, 1, 1), "quant_conv.bias": torch.zeros(16)}
    save_file(state, tmp_path / "ci.safetensors")
    spec = f"cosmos-di8={tmp_path / 'ci.safetensors'}"
    assert tokenized(photographs, spec, 16, tmp_path / "s.shard") == 2
    assert "continuous tokenizer (CI) have no tokens" in capsys.readouterr().err
    assert not (tmp_path / "s.shard").exists()


def test_a_decoder_without_a_sampler_takes_no_steps(spec: str, photographs: Path, tmp_path: Path) -> None:
    shard, out = tmp_path / "tokens.shard", ["--out", str(tmp_path / "out")]
    assert tokenized(photographs, spec, 16, shard) == 0
    assert main(["detokenize", str(shard), "--peer", spec, "--steps", "4", *out]) == 2
    assert main(["generate", "--peer", spec, "--decoder-steps", "4", *out]) == 2
    assert not (tmp_path / "out").exists()


def test_killed_it_goes_on_where_it_was(
    spec: str, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, shard = tmp_path / "whole.shard", tmp_path / "tokens.shard"
    monkeypatch.setattr(data_set, "PART", 2)
    assert tokenized(photographs, spec, 16, whole, "--batch-size", "1") == 0
    calls: list[int] = []
    plain = PeerTokenizer.tokenize

    def counted(self: PeerTokenizer, images: Tensor, bits_per_token: int | None = None) -> Tokens:
        calls.append(len(images))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(self, images, bits_per_token)

    monkeypatch.setattr(PeerTokenizer, "tokenize", counted)
    with contextlib.suppress(KeyboardInterrupt):
        assert tokenized(photographs, spec, 16, shard, "--batch-size", "1") != 0
    assert not shard.exists()
    assert len(calls) == 4
    assert tokenized(photographs, spec, 16, shard, "--batch-size", "1") == 0
    assert len(calls) == 4 + len(samples.paths()) - 2, "a part that was whole was coded again"
    ours, theirs = read_shard(shard), read_shard(whole)
    assert (ours.names, ours.tokens, ours.tokenizer) == (theirs.names, theirs.tokens, theirs.tokenizer)


def test_two_processes_write_what_one_writes(spec: str, tmp_path: Path) -> None:
    """A part has 1,024 images, so that the second process has its share."""
    source = open_images(samples.paths()[0].parent)
    some = [np.asarray(fit_image(source[i], 16, 16)) for i in range(len(source))]
    many = np.concatenate([np.roll(np.stack(some), k, axis=2) for k in range(16)] * 12)[: data_set.PART + 40]
    np.save(tmp_path / "many.npy", many)
    np.save(tmp_path / "many.labels.npy", np.arange(len(many)) % 3)
    command = ["tokenize", str(tmp_path / "many.npy"), "--peer", spec, "--peer-size", "16", "--batch-size", "64", *CPU]
    assert main([*command, "--out", str(tmp_path / "one.shard")]) == 0
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "flowmo"]
    done = subprocess.run(
        [warm_python.python(), *launcher, *command, "--out", str(tmp_path / "two.shard")],
        env=warm_python.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, two = read_shard(tmp_path / "one.shard"), read_shard(tmp_path / "two.shard")
    assert len(one.names) == data_set.PART + 40
    assert (one.names, one.tokens, one.fingerprint) == (two.names, two.tokens, two.fingerprint)
    assert one.labels is not None
    assert two.labels is not None
    assert one.labels.equal(two.labels)
