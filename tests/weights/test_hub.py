"""Models by name and address, against a hub on this machine and without any, in processes that start afresh: the hub's
client reads its settings once, when it is imported."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_support import Hub, add_folder, serving

import flowmo
import warm_python
from flowmo.config import FlowMoConfig, TransformerConfig
from flowmo.errors import WeightsError
from flowmo.generation import Generator, load_generator
from flowmo.generation.presets import maskgit_mini
from flowmo.hub import repository_of
from flowmo.presets import tiny
from flowmo.weights import official_layout
from flowmo.weights.hub import is_remote
from flowmo.weights.load import PACKAGED

needs_client = pytest.mark.skipif(
    importlib.util.find_spec("huggingface_hub") is None, reason="needs huggingface_hub: flowmo[hub]"
)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as found:
        yield found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def run(program: str, home: Path, endpoint: str, offline: bool = False) -> subprocess.CompletedProcess[str]:
    """A program after ``import flowmo``, with caches of its own."""
    environment = warm_python.environment() | {
        "HF_HOME": str(home / "hf"),
        "FLOWMO_CACHE": str(home / "flowmo"),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_TOKEN": "hf_secret",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [warm_python.python(), "-c", f"import flowmo\n{program}"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)


def lines(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def released(path: Path) -> None:
    """A narrow model in the released format."""
    narrow = TransformerConfig(patch_size=32, width=32, depth=1, heads=1)
    layout = official_layout(FlowMoConfig(encoder=narrow, decoder=narrow))
    generator = torch.Generator().manual_seed(0)
    state = {key: 0.05 * torch.randn(slot.shape, generator=generator) for key, slot in layout.items()}
    torch.save({"total_steps": 1, "model_state_dict": state, "model_ema_state_dict": state}, path)


def test_what_is_a_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    assert repository_of("owner/name") == "owner/name"
    assert repository_of("https://huggingface.co/owner/na.me-1/") == "owner/na.me-1"
    for text in ("runs/first", "a/b/c", "name", "out/model.safetensors", "../x", "~/x", "/srv/x", "https://a.org/b/c"):
        assert repository_of(text) is None, text
    assert [is_remote(name) for name in ("flowmo-hi", "https://a.org/b.pth", "owner/name", "runs/first")] == [
        1,
        1,
        1,
        0,
    ]
    assert not is_remote(Path("owner/name"))  # a Path is meant as one


@needs_client
def test_a_released_model_is_fetched_once_and_converted_once(hub: Hub, home: Path, tmp_path: Path) -> None:
    released(tmp_path / "flowmo_lo.pth")
    hub.files["ksarge/FlowMo/flowmo_lo.pth"] = (tmp_path / "flowmo_lo.pth").read_bytes()
    program = "m = flowmo.load('flowmo-lo'); print(m.fingerprint(), m.config.bits_per_token, m.training)"
    first = run(program, home, hub.address)
    expected = flowmo.load(tmp_path / "flowmo_lo.pth")
    assert lines(first) == [f"{expected.fingerprint()} 18 False"]
    size = len(hub.files["ksarge/FlowMo/flowmo_lo.pth"])
    assert f"fetching flowmo_lo.pth ({size / 1e6:.3g} MB) of ksarge/FlowMo" in first.stderr
    (converted,) = home.rglob("flowmo_lo.safetensors")
    assert converted.parent == next(home.rglob("flowmo_lo.pth")).parent
    asked = len(hub.asked)
    again = run(program + "; print(flowmo.load('flowmo-lo', ema=False).fingerprint())", home, hub.address, offline=True)
    assert lines(again) == [*lines(first), str(expected.fingerprint())]
    assert "fetching" not in again.stderr
    assert len(hub.asked) == asked
    weights = flowmo.load(converted).state_dict()  # in full precision: exactly those of the checkpoint
    assert all(torch.equal(weights[name], value) for name, value in expected.state_dict().items())
    converted.write_bytes(b"damaged")
    assert lines(run(program, home, hub.address, offline=True)) == lines(first)


@needs_client
def test_save_push_and_load(hub: Hub, home: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = flowmo.FlowMo(tiny()).eval()
    folder = model.save_pretrained(tmp_path / "saved", about={"images": 3})
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert flowmo.FlowMo.from_pretrained(folder).fingerprint() == model.fingerprint()
    pushed = run(f"m = flowmo.load({str(folder)!r}); print(m.push_to_hub('me/tiny', private=True))", home, hub.address)
    assert lines(pushed) == [f"{hub.address}/me/tiny"]
    assert {name for name in hub.files if name.startswith("me/tiny/")} == {
        f"me/tiny/{name}" for name in ("README.md", "config.json", "model.safetensors")
    }
    read = "print(flowmo.load('me/tiny').fingerprint(), flowmo.FlowMo.from_pretrained('me/tiny').fingerprint())"
    assert lines(run(read, home, hub.address)) == [f"{model.fingerprint()} {model.fingerprint()}"]
    assert lines(run(read, home, hub.address, offline=True)) == [f"{model.fingerprint()} {model.fingerprint()}"]


@needs_client
def test_generators_too(hub: Hub, home: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    generator = Generator(maskgit_mini(), []).eval()
    add_folder(hub, "me/generator", generator.save_pretrained(tmp_path / "saved", license="mit"))
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "license: mit" in card
    assert "library_name: flowmo" in card
    assert Generator.from_pretrained(tmp_path / "saved").config == generator.config
    program = (
        "from flowmo.generation import Generator, load_generator\n"
        "a, b = Generator.from_pretrained('me/generator'), load_generator('me/generator')\n"
        "print(a.config == b.config, float(a.positions.sum() - b.positions.sum()), a.training)"
    )
    assert lines(run(program, home, hub.address)) == ["True 0.0 False"]
    with pytest.raises(WeightsError, match="not of a generator"):
        load_generator(flowmo.FlowMo(tiny()).save_pretrained(tmp_path / "tokenizer"))


@needs_client
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody/nothing", "there is no model 'nobody/nothing' on the hub"),
        ("me/other", "has no model.safetensors: it is no model of FlowMo's"),
    ],
)
def test_what_is_not_there_is_said(name: str, said: str, hub: Hub, home: Path) -> None:
    hub.files["me/other/README.md"] = b"# another library's"
    result = run(f"flowmo.load({name!r})", home, hub.address)
    assert result.returncode == 1
    assert said in result.stderr.splitlines()[-1]


@needs_client
@pytest.mark.parametrize("offline", [True, False])
def test_without_a_connection_the_ways_out_are_named(home: Path, offline: bool) -> None:
    result = run("flowmo.load('flowmo-hi')", home, "http://127.0.0.1:9", offline)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("flowmo.errors.WeightsError: flowmo_hi.pth of ksarge/FlowMo is not in ")
    assert "hf download ksarge/FlowMo flowmo_hi.pth" in last


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for name in ("flowmo-lo", "owner/name"):
        with pytest.raises(WeightsError, match=r"pip install 'flowmo\[hub\]'"):
            flowmo.load(name)


def test_a_file_by_its_address(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWMO_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(1)
    model = flowmo.FlowMo(tiny())
    hub.files["files/own.safetensors"] = (model.save_pretrained(tmp_path / "m") / "model.safetensors").read_bytes()
    released(tmp_path / "theirs.pth")
    hub.files["files/theirs.pth"] = (tmp_path / "theirs.pth").read_bytes()
    assert flowmo.load(f"{hub.address}/files/own.safetensors?download=1").fingerprint() == model.fingerprint()
    size = f"{len(hub.files['files/own.safetensors']) / 1e3:.3g} kB"
    assert f"fetching own.safetensors ({size}) from 127.0.0.1" in capsys.readouterr().err
    asked = len(hub.asked)
    assert flowmo.load(f"{hub.address}/files/own.safetensors?download=1").fingerprint() == model.fingerprint()
    assert len(hub.asked) == asked
    assert flowmo.load(f"{hub.address}/files/theirs.pth").config.bits_per_token == 18


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("{}/files/absent.safetensors", "could not fetch .*404"),
        ("{}/files/page.html", "does not end in the name of a file of weights"),
        ("http://127.0.0.1:9/m.safetensors", "could not fetch"),
        ("ftp://127.0.0.1/m.safetensors", "could not fetch"),
        ("file:///etc/m.safetensors", "could not fetch"),
    ],
)
def test_a_bad_address_is_explained(
    address: str, said: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWMO_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsError, match=said):
        flowmo.load(address.format(hub.address))
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_the_card_has_front_matter_and_the_numbers_of_a_result(tmp_path: Path) -> None:
    results = Path(__file__).parents[2] / "results"
    model, result = flowmo.load(), results / f"{PACKAGED}-standard.json"
    folder = model.save_pretrained(tmp_path / "card", result=result)
    card = (folder / "README.md").read_text()
    front, _, body = card.removeprefix("---\n").partition("\n---\n")
    for line in ("library_name: flowmo", "pipeline_tag: image-to-image", "license: other", "- rfid", "- psnr"):
        assert line in front.splitlines()
    measured = json.loads(result.read_text())
    assert f"| {measured['content']['metrics']['rfid']:.2f} |" in body
    assert f"{measured['data']['count']} images (photos256), protocol 'standard'" in body
    assert f"fingerprint of its token files: {model.fingerprint():08x}" in body
    with pytest.raises(WeightsError, match="measured with another model"):
        flowmo.FlowMo(tiny()).save_pretrained(tmp_path / "no", result=result)
    with pytest.raises(WeightsError, match="no result of 'flowmo evaluate'"):
        flowmo.load().save_pretrained(tmp_path / "no", result=folder / "README.md")
    assert not (tmp_path / "no").exists()
