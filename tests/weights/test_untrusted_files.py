"""Weights from strangers: mutations by the thousand, sizes that would hang, and tensors that would give rubbish."""

from __future__ import annotations

import json
import os
import random
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file, save, save_file

from flowmo.cli.main import main
from flowmo.describe import describe
from flowmo.errors import FlowMoError, WeightsError
from flowmo.generation import Generator, load_generator
from flowmo.generation.config import GeneratorConfig, TokenLayout
from flowmo.generation.files import save_generator
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.weights import load as load_weights
from flowmo.weights import load_model, read_about, save_model, save_model_shards

WRONG: list[Any] = [
    0, -1, 3, 2**16, 2**31, 2**40, 2**63, 10**30, 1e308, float("nan"), float("inf"), True, None, "", "x", "inf", [], {},
    [1, 2], {"a": 1}, "9" * 5000, 0.5,
]  # fmt: skip


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(header: dict[str, Any], tensors: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


def change_somewhere(table: Any, rng: random.Random) -> None:
    """One value of nested tables and lists replaced, removed or doubled under another name."""
    while True:
        keys = list(table) if isinstance(table, dict) else list(range(len(table)))
        if not keys:
            return
        key = rng.choice(keys)
        inner = table[key]
        if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.2:
            break
        table = inner
    if rng.random() < 0.15 and isinstance(table, dict):
        table[f"{key}x"] = table.pop(key)
    elif rng.random() < 0.1:
        del table[key]
    else:
        table[key] = rng.choice(WRONG)


def mutate(data: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(9)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    if kind in (1, 2):  # flipped bits, of the header above all
        size = 8 + int.from_bytes(data[:8], "little")
        changed = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(size if kind == 1 else len(data))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if kind == 3:
        return rng.choice([0, 1, 2**24 + 1, 2**40, 2**64 - 1]).to_bytes(8, "little") + data[8:]
    header, tensors = parts(data)
    if kind == 4:  # shapes, kinds and offsets of tensors
        change_somewhere(header, rng)
    elif kind in (5, 6):  # the texts of the header, as JSON
        name = rng.choice([name for name, text in header["__metadata__"].items() if text[:1] in "{["])
        content = json.loads(header["__metadata__"][name])
        change_somewhere(content, rng)
        header["__metadata__"][name] = json.dumps(content)
    elif kind == 7:
        deep = "[" * rng.choice([10, 900, 10_000, 200_000])
        header["__metadata__"][rng.choice(list(header["__metadata__"]))] = rng.choice(
            [deep, '{"a":' * 5000, "NaN", "1e999"]
        )
    else:
        values = bytearray(tensors)
        place = rng.randrange(0, len(values) - 8)
        values[place : place + 8] = rng.choice([b"\xff" * 8, b"\x00\x7c" * 4, b"\x00\x7e" * 4, rng.randbytes(8)])
        tensors = bytes(values)
    return joined(header, tensors)


def examine(path: Path) -> list[bool]:
    """Which of the four ways to read a file take it; anything but our errors is raised."""
    taken = []
    for read in (load_model, read_about, load_generator, lambda _: json.dumps(describe(str(path)))):
        try:
            read(path)
            taken.append(True)
        except FlowMoError as error:
            taken.append(False)
            assert str(error)  # noqa: PT017
    return taken


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A tokenizer and a generator."""
    folder = tmp_path_factory.mktemp("originals")
    save_model(FlowMo(tiny()), folder / "m.safetensors", about={"images": 3, "log": [1.5, {"a": None}]})
    config = GeneratorConfig(32, 2, 2, 3, tokens=TokenLayout())
    save_generator(Generator(config, ["a", "b", "c"]), folder / "g.safetensors", about={"images": 3})
    return [(folder / name).read_bytes() for name in ("m.safetensors", "g.safetensors")]


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.skipif(
    "FLOWMO_SLOW" not in os.environ, reason="minutes: set FLOWMO_SLOW=1"))])  # fmt: skip
def test_mutations_raise_nothing_but_our_errors(count: int, originals: list[bytes], tmp_path: Path) -> None:
    rng, path = random.Random(count), tmp_path / "m.safetensors"
    taken = torch.zeros(4, dtype=torch.int64)
    for number in range(count):
        path.write_bytes(mutate(rng.choice(originals), rng))
        try:
            taken += torch.tensor(examine(path))
        except Exception as error:
            raise AssertionError(f"mutation {number} of {count}: {error!r}") from error
    print(f"of {count:,} mutations model, about, generator and info took {taken.tolist()}")
    assert 0 < taken.max() < count


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("depth", 10**7),
        ("width", 2**40),
        ("heads", 2**40),
        ("patch_size", 10**9),
        ("mlp_ratio", 10**12),
        ("depth", 512),
        ("base_width", 10**400),
    ],
)
def test_sizes_that_would_hang_or_overflow(where: str, value: int, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "m.safetensors"
    save_model(FlowMo(tiny()), path)
    header, tensors = parts(path.read_bytes())
    config = json.loads(header["__metadata__"]["config"])
    config["encoder"][where] = value
    header["__metadata__"]["config"] = json.dumps(config)
    path.write_bytes(joined(header, tensors))
    assert main(["info", str(path)]) == 2
    assert where in capsys.readouterr().err or value == 512


def test_numbers_that_json_has_not_are_told_as_none(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "m.safetensors"
    save_model(FlowMo(tiny()), path)
    header, tensors = parts(path.read_bytes())
    header["__metadata__"]["about"] = '{"loss": NaN, "rate": 1e999, "of": [NaN]}'
    path.write_bytes(joined(header, tensors))
    assert main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["about"] == {"loss": None, "rate": None, "of": [None]}
    assert main(["info", str(path)]) == 0


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), torch.int8, torch.bool, torch.complex64, torch.float8_e5m2]
)
@pytest.mark.parametrize("name", ["encoder.readout.weight", "decoder.readout.bias"])
def test_tensors_that_are_no_finite_numbers_are_refused(value: Any, name: str, tmp_path: Path) -> None:
    model = FlowMo(tiny())
    save_model(model, tmp_path / "m.safetensors", torch.float32)
    metadata = parts((tmp_path / "m.safetensors").read_bytes())[0]["__metadata__"]
    tensors = load_file(tmp_path / "m.safetensors")
    if isinstance(value, float):
        tensors[name].view(-1)[0] = value
    else:
        tensors[name] = torch.zeros_like(tensors[name]).to(value)
    for path, kept in ((tmp_path / "bad.safetensors", tensors), (tmp_path / "bad.pth", None)):
        if kept is not None:
            save_file(kept, path, metadata=metadata)
            with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
                load_model(path)


@pytest.mark.parametrize("value", [float("nan"), torch.int8, torch.complex64])
def test_the_same_in_released_files(value: Any, tmp_path: Path) -> None:
    from flowmo.weights.official import model_from_official, official_layout

    config = tiny()
    state = {key: torch.zeros(slot.shape) for key, slot in official_layout(config).items()}
    key = "decoder.img_in.weight"
    state[key] = torch.full(state[key].shape, value) if isinstance(value, float) else state[key].to(value)
    with pytest.raises(WeightsError, match=r"decoder\.img_in\.weight"):
        model_from_official(state, config)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model.module."])
def test_prefixes_of_wrappers_are_understood(prefix: str, tmp_path: Path) -> None:
    model = FlowMo(tiny())
    save_model(model, tmp_path / "m.safetensors", torch.float32)
    metadata = parts((tmp_path / "m.safetensors").read_bytes())[0]["__metadata__"]
    tensors = load_file(tmp_path / "m.safetensors")
    path = tmp_path / "p.safetensors"
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, path, metadata=metadata)
    assert load_model(path).fingerprint() == model.fingerprint()
    twice = {prefix + "encoder.readout.weight": tensors["encoder.readout.weight"].clone()}
    save_file(tensors | twice, path, metadata=metadata)
    with pytest.raises(WeightsError, match="do not fit"):
        load_model(path)


def test_the_advice_to_load_unsafely_is_not_passed_on(tmp_path: Path) -> None:
    class Other:
        pass

    Other.__qualname__ = "Other"
    globals()["Other"] = Other
    for name, content in {"object": {"a": Other()}, "function": {"a": os.system}}.items():
        for zipped in (True, False):
            path = tmp_path / f"{name}{zipped}.pth"
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            with pytest.raises(WeightsError, match="holds more than tensors") as refused:
                load_weights(path)
            said = str(refused.value)
            assert not any(
                word in said for word in ("weights_only", "add_safe_globals", "arbitrary code", "the source")
            )


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_claims_memory_is_refused_at_once(zipped: bool, tmp_path: Path) -> None:
    import resource

    path = tmp_path / "bomb.pth"
    if zipped:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data.pkl", b"(" * 2**28)
    else:
        path.write_bytes(b"\x80\x02" + b"(" * 2**26)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError):
        load_weights(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700_000  # KiB


def test_tensors_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.pth"
    torch.save({"encoder.img_in.weight": torch.zeros(1).expand(10**6, 10**6)}, path)
    with pytest.raises(WeightsError, match="claim more memory"):
        load_weights(path)


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "safetensors.index.json"])
def test_pipes_do_not_hang(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"pipe.{suffix}"
    os.mkfifo(path)
    with pytest.raises(WeightsError, match="no plain file"):
        load_weights(path)
    with pytest.raises(WeightsError, match="no plain file"):
        load_generator(path)


def test_files_have_the_mode_of_others_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    model = FlowMo(tiny())
    about = {str(k): "\x1b é \u2028" for k in range(5)}
    before = os.umask(0o027)
    try:
        for k in range(6):
            save_model(model, tmp_path / f"{k}.safetensors", about=about)
        save_model_shards(model, tmp_path / "several", about=about, most_bytes=200_000)
    finally:
        os.umask(before)
    assert len({(tmp_path / f"{k}.safetensors").read_bytes() for k in range(6)}) == 1
    assert read_about(tmp_path / "0.safetensors") == about
    for path in [*tmp_path.glob("*.safetensors"), *(tmp_path / "several").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640, path
    again = load(save(load_file(tmp_path / "0.safetensors")))
    assert again.keys() == load_file(tmp_path / "0.safetensors").keys()
