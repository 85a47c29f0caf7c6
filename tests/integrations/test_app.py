"""The app without its page, and its page in a real browser."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from flowmo import samples
from flowmo.codec import read_file
from flowmo.data import to_tensor
from flowmo.errors import ConfigError, ImageError
from flowmo.generation import Generator, TokenLayout
from flowmo.generation import presets as generators
from flowmo.integrations.app import App
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo

CAT = next(path for path in samples.paths() if path.stem == "cat")


def browser_support() -> Any:
    """The browser that the gallery's tests use."""
    path = Path(__file__).parents[1] / "viewing" / "browser_support.py"
    specification = importlib.util.spec_from_file_location("browser_support", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules.setdefault("browser_support", module)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def app(lively: Callable[[nn.Module], nn.Module], tmp_path_factory: pytest.TempPathFactory) -> App:
    """Two rates, the higher first, and a generator of the lower one's tokens."""
    torch.manual_seed(1)
    models = [lively(FlowMo(replace(tiny(), num_tokens=n))) for n in (32, 16)]
    layout = TokenLayout(f"{models[1].fingerprint():08x}", 16, 18, 9, (32, 32))  # type: ignore[operator]
    generator = lively(Generator(generators.tiny(layout, 3), ["red fox", "alp", "pizza"]))
    return App(models, generator, tmp_path_factory.mktemp("app"))  # type: ignore[arg-type]


def test_a_photograph_and_its_file(app: App) -> None:
    image = Image.open(CAT)
    low, high = app.code(image, 0, num_steps=2), app.code(image, 1, num_steps=2)
    assert (low.payload_bytes, high.payload_bytes) == (36, 72)
    assert low.file_bytes == low.file.stat().st_size == 60
    assert app.rates[0] == "36 bytes, 0.281 bits per pixel"
    token_file = read_file(low.file, app.models[0].fingerprint())
    assert token_file.original_size == (image.height, image.width)
    again = app.models[0].detokenize(token_file.tokens, num_steps=2, seed=0)
    shown = to_tensor(low.reconstruction.resize((32, 32), Image.Resampling.NEAREST))
    assert (again[0] - shown).abs().max() < 0.005
    assert low.original.size == low.reconstruction.size == (512, 512)
    assert np.isfinite(low.psnr)
    other = app.code(image, 0, num_steps=2, seed=1)
    assert np.any(np.asarray(other.reconstruction) != np.asarray(low.reconstruction))
    assert other.file == low.file  # the same tokens


def test_classes_and_what_cannot_be(app: App) -> None:
    assert app.classes == ["red fox", "alp", "pizza"]
    first, again, other = app.draw(1, 2), app.draw(1, 2), app.draw(1, 2, seed=5)
    assert [np.asarray(a).tobytes() for a in first] == [np.asarray(a).tobytes() for a in again]
    assert np.asarray(first[0]).tobytes() != np.asarray(other[0]).tobytes()
    with pytest.raises(ImageError, match="drop a photograph first"):
        app.code(None)
    with pytest.raises(ConfigError, match="no generator"):
        App([app.models[0]], folder=app.folder).draw(0)
    with pytest.raises(ConfigError, match="which is no model here"):
        App([app.models[1]], app.generator, app.folder)


@pytest.fixture(scope="module")
def page(app: App) -> Iterator[Any]:
    """(browser, address) of the page as it is served."""
    pytest.importorskip("gradio", reason="needs gradio: pip install 'flowmo[app]'")
    from flowmo.integrations import gradio

    support = browser_support()
    with support.chromium() as browser:
        served, address, _ = gradio.launch(app, "127.0.0.1", None, block=False)
        blocks = served if hasattr(served, "close") else None
        browser.driver.set_window_size(1300, 1000)
        browser.driver.get(address)
        yield browser
        if blocks is not None:
            blocks.close()


def test_the_page_says_where_it_is(
    app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In FlowMo's words; gradio's own name arguments that the command does not have."""
    blocks = pytest.importorskip("gradio", reason="needs gradio: pip install 'flowmo[app]'").Blocks
    from flowmo.integrations import gradio

    monkeypatch.setattr(blocks, "block_thread", blocks.close)
    _, address, _ = gradio.launch(app, "127.0.0.1", None)
    printed = capsys.readouterr().out
    assert printed.startswith(f"open {address} in a browser; Ctrl-C ends it\n")
    assert "share" not in printed


def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    """What ``found`` returns once it is true, or in the end."""
    end = time.monotonic() + seconds
    while not (value := found()) and time.monotonic() < end:
        time.sleep(0.2)
    return value


def wait(browser: Any, script: str) -> Any:
    """What a script in the page returns once it is true."""
    value = until(lambda: browser.run(script))
    assert value, f"the page never answered: {script}\n{browser.run('return document.body.innerText')[:800]}"
    return value


def test_in_a_browser(page: Any, app: App, tmp_path: Path) -> None:
    """A photograph is dropped, coded and shown with its bytes; another rate has more; a file can be fetched."""
    wait(page, "return document.querySelector('#photograph input[type=file]') !== null")
    page.find("#photograph input[type=file]").send_keys(str(CAT))
    facts = wait(page, "return document.querySelector('#facts table') && document.querySelector('#facts').innerText")
    assert "36" in facts.split()
    assert "dB" in facts
    assert wait(page, "return document.querySelectorAll('#divider img').length >= 2")
    wait(page, "return [...document.querySelectorAll('#divider img')].every((i) => i.naturalWidth === 512)")
    page.run(
        "const i = document.querySelector('#rate input[type=number]');"
        "Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(i, 1);"
        "for (const e of ['input', 'change', 'blur']) i.dispatchEvent(new Event(e, {bubbles: true}))"
    )
    time.sleep(0.5)
    page.find("#code").click()
    wait(page, "return document.querySelector('#facts').innerText.split(/\\s+/).includes('72')")
    settings = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", settings)
    page.find("#download").click()
    (fetched,) = until(lambda: list(tmp_path.glob("*.flowmo")))
    assert read_file(fetched, app.models[1].fingerprint()).tokens.num_tokens == 32
    asked = {url.partition("//")[2].partition(":")[0] for url in page.requests() if url.startswith("http")}
    assert asked <= {"127.0.0.1", "localhost"}  # no font, script or report from elsewhere


def test_classes_in_a_browser(page: Any) -> None:
    wait(page, "return [...document.querySelectorAll('button[role=tab]')].length >= 2")
    page.run("[...document.querySelectorAll('button[role=tab]')].find((b) => b.innerText.includes('Classes')).click()")
    wait(page, "const b = document.querySelector('#draw'); return b && b.offsetParent !== null")
    page.find("#draw").click()
    assert wait(page, "return document.querySelectorAll('#samples img').length >= 4")
    severe = [text for text in page.messages() if "SEVERE" in text or "Uncaught" in text]
    assert not severe
