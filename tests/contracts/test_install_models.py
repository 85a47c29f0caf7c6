"""tools/package_model.py and tools/install_models.py: from trained weights to what ``flowmo.load()`` gives, in a copy
of the source tree."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowmo import presets, samples
from flowmo.config import FlowMoConfig, TransformerConfig
from flowmo.data import open_image, to_tensor
from flowmo.fit_transform import fit_transform
from flowmo.generation import PACKAGED_GENERATOR, generator_path, load_generator
from flowmo.presets import flowmo_mini_8, tiny
from flowmo.tokenizer import FlowMo
from flowmo.weights import load_model, save_model
from flowmo.weights.load import PACKAGED, packaged_by_fingerprint, packaged_names

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "flowmo"
NEW = "flowmo-base"
"""The name of what is installed here, of which the package has no weights."""
Tool = Callable[..., int]


def owner() -> str:
    """The packaged tokenizer of whose tokens the packaged generator is."""
    wanted = load_generator(PACKAGED_GENERATOR).config.tokens.fingerprint
    return next(iter(packaged_by_fingerprint([int(wanted, 16)])))


@pytest.fixture(scope="module")
def start() -> FlowMo:
    """The best closed-form code of the samples, with a transformer of the smallest kind."""
    small = TransformerConfig(patch_size=8, width=64, depth=1, heads=1)
    crops = torch.stack([to_tensor(open_image(p).image.convert("RGB").resize((128, 128))) for p in samples.paths()])
    parts = crops.unfold(2, 64, 64).unfold(3, 64, 64).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 64, 64)
    return fit_transform(replace(flowmo_mini_8(), encoder=small, decoder=small), lambda: parts.split(16))


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Tool]:
    """tool(name): its main, to be called with arguments; it returns the exit code."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))

    def main_of(name: str) -> Tool:
        main = runpy.run_path(str(ROOT / "tools" / f"{name}.py"))["main"]
        return lambda *arguments: int(main([str(a) for a in arguments]))

    return main_of


@pytest.fixture
def package(start: FlowMo, tmp_path: Path, tool: Callable[[str], Tool], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of a trained model, whose configuration is the preset ``NEW`` but for its sampler."""
    config = start.config
    monkeypatch.setitem(presets.PRESETS, NEW, lambda: config)
    begin = tmp_path / "start.safetensors"
    save_model(start, begin)
    trained = load_model(begin)
    with torch.no_grad():
        trained.decoder.readout.weight.add_(0.01)
    trained.config = replace(config, sampler=replace(config.sampler, num_steps=2, rho=4.0))
    model = tmp_path / "trained.safetensors"
    save_model(trained, model, torch.float32, about={"images": 1234, "weights": "EMA"})
    results = tmp_path / "results"
    results.mkdir()
    for count, psnr in ((72, 20.0), (144, 22.5)):
        content = {"rate": {"payload_bytes": count, "bits_per_pixel": count / 512}, "metrics": {"psnr": psnr}}
        result = {"kind": "evaluation", "content": content, "data": {"count": 8}}
        (results / f"{count}.json").write_text(json.dumps(result))
    out = tmp_path / "package"
    flags = ("--name", NEW, "--start", begin, "--results", results)
    assert tool("package_model")(model, out, *flags) == 0
    return out


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the source tree."""
    copied = tmp_path / "tree" / "src" / "flowmo"
    shutil.copytree(SOURCE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "tree"


def in_tree(tree: Path, program: str) -> str:
    """What a program prints that imports the copy."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tree)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_package_is_half_precision_and_tells_what_it_is(package: Path, start: FlowMo) -> None:
    card = json.loads((package / "card.json").read_text())
    weights = load_model(package / f"{NEW}.safetensors")
    parameters = sum(p.numel() for p in weights.parameters())
    assert card["parameters"] == parameters
    assert 2 * parameters <= card["bytes"] < 2 * parameters + 30_000
    assert card["fingerprint"] == f"{start.fingerprint():08x}"
    assert card["tokens_of_the_start"] is True
    assert card["is_the_preset"] is True
    assert card["about"] == {"images": 1234, "weights": "EMA"}
    assert [row["psnr"] for row in card["rates"]] == [20.0, 22.5]
    assert "| 144 |" in (package / "card.md").read_text()


def test_one_command_makes_it_the_default(
    package: Path, tree: Path, start: FlowMo, tool: Callable[[str], Tool]
) -> None:
    packaged = tree / "src" / "flowmo" / "weights" / "packaged"
    assert tool("install_models")(package, "--tree", tree) == 0
    found = in_tree(
        tree, "import flowmo; m = flowmo.load(); print(f'{m.fingerprint():08x}', m.config.sampler.num_steps)"
    )
    assert found == f"{start.fingerprint():08x} 2"
    program = "from flowmo.cli.main import main; main(['reconstruct', '--help'])"
    assert f"{NEW})" in in_tree(tree, f"try:\n    {program}\nexcept SystemExit: pass")
    card = (packaged / "README.md").read_text()
    assert card.startswith(f"# {NEW}\n")
    assert "saw 1,234 images" in card
    assert f"\n# {PACKAGED}\n" in card  # that stays, and so does its card
    # The generator's tokenizer is not the default, and is found all the same.
    flags = "'generate', '--class', 'goldfish', '-n', '1', '--mask-steps', '1', '--out', 'g'"
    in_tree(tree, f"from flowmo.cli.main import main; assert main([{flags}]) == 0")
    assert (tree / "g" / "grid.png").is_file()


def test_nothing_changes_where_the_package_would_not_be_whole(
    package: Path,
    tree: Path,
    tool: Callable[[str], Tool],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def state() -> dict[str, bytes]:
        files = [*tree.rglob("packaged/*"), *tree.rglob("load.py"), *tree.rglob("generation/files.py")]
        return {str(path): path.read_bytes() for path in files if path.is_file()}

    before, install, old = state(), tool("install_models"), owner()

    def refused(*more: object) -> str:
        capsys.readouterr()
        assert install(package, "--tree", tree, *more) == 2
        assert state() == before
        return capsys.readouterr().err

    assert f"the generator {PACKAGED_GENERATOR} makes tokens" in refused("--remove", old)
    assert "no packaged weights flowmo-none" in refused("--remove", "flowmo-none")
    assert install(package, "--tree", tree, "--remove", old, PACKAGED_GENERATOR, "--dry-run") == 0
    assert state() == before
    size = (package / f"{NEW}.safetensors").stat().st_size + generator_path(PACKAGED_GENERATOR).stat().st_size
    monkeypatch.setitem(sys.modules["package_model"].__dict__, "MOST_BYTES", size)
    tight = tool("install_models")
    capsys.readouterr()
    assert tight(package, "--tree", tree) == 2
    assert "--remove those that these models replace" in capsys.readouterr().err
    assert state() == before

    def other() -> FlowMoConfig:
        config = flowmo_mini_8()
        assert config.transform is not None
        return replace(config, transform=replace(config.transform, num_components=7))

    monkeypatch.setitem(presets.PRESETS, NEW, other)
    said = refused()
    assert f"is not the preset {NEW!r}" in said


def test_a_model_that_goes_takes_its_card_along(package: Path, tree: Path, tool: Callable[[str], Tool]) -> None:
    packaged, old = tree / "src" / "flowmo" / "weights" / "packaged", owner()
    assert tool("install_models")(package, "--tree", tree, "--remove", old, PACKAGED_GENERATOR) == 0
    stay = {f"{name}.safetensors" for name in packaged_names()} - {f"{old}.safetensors"}
    assert {path.name for path in packaged.iterdir()} == {"README.md", f"{NEW}.safetensors"} | stay
    assert f"# {old}\n" not in (packaged / "README.md").read_text()


def test_the_demo_shows_two_rates_beside_thumbnail_and_codec(
    start: FlowMo, lpips: None, tmp_path: Path, tool: Callable[[str], Tool], capsys: pytest.CaptureFixture[str]
) -> None:
    """`make demo MODEL=...`; of a model of one rate it is flowmo reconstruct."""
    photos, model, out = tmp_path / "photos", tmp_path / "start.safetensors", tmp_path / "out"
    photos.mkdir()
    for path in samples.paths()[:2]:
        shutil.copy(path, photos)
    save_model(start, model)
    demo = tool("demo")
    flags = ("--pictures", photos, "--out", out, "--bytes", 72, 144)
    assert demo(model, *flags, "--figure", tmp_path / "figure.png") == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    ours = [line for line in table if line[:1] == ["FlowMo"]]
    assert [line[1] for line in ours] == ["72", "144"]
    assert float(ours[1][2]) > float(ours[0][2])  # dB
    codecs = [line for line in table if line[:2] == ["nearest", "codec"]]
    assert all(float(line[2]) <= size for line, size in zip(codecs, (72, 144), strict=True))
    names = {f"{path.stem}.{size}.png" for path in samples.paths()[:2] for size in (72, 144)}
    assert {path.name for path in out.iterdir()} == names | {"contact-sheet.png"}
    sheet = open_image(out / "contact-sheet.png").image
    assert sheet.height >= 7 * 128  # the originals, and three rows a rate
    assert demo(model, *flags[:4], "--bytes", 5) == 2
    assert "more --bytes" in capsys.readouterr().err
    save_model(FlowMo(tiny()), tmp_path / "one.safetensors")
    assert demo(tmp_path / "one.safetensors", "--pictures", photos, "--out", tmp_path / "one") == 0
    assert (tmp_path / "one" / f"{samples.paths()[0].stem}.side-by-side.png").is_file()
