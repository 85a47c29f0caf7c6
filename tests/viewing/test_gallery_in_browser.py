"""The gallery in a real browser: what is seen and done with it, from a file, without a network."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_support import Browser, chromium
from PIL import Image
from test_gallery_page import EVIL
from test_gallery_page import page as write_page
from torch import Tensor

from flowmo import samples as packaged
from flowmo.cli.main import main
from flowmo.data import to_image

LEFT, RIGHT = "\ue012", "\ue014"  # the keys, as WebDriver names them
VIEWS = """return [...document.querySelectorAll(".view img[src]")].map((image) => {
  const [i, v] = [image, image.closest(".view")].map((e) => e.getBoundingClientRect());
  return [i.width / v.width, i.height / v.height, (i.x - v.x) / v.width, (i.y - v.y) / v.height];
})"""


class Made:
    """The page that the command makes of the packaged pictures with a model of 64 x 64 pixels, and what is in it."""

    def __init__(self, path: Path) -> None:
        text = path.read_text()
        self.path = path
        self.data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
        self.rows = [json.loads(row) for row in re.findall(r'class="row">(.*?)</script>', text)]
        self.names = [picture["name"] for picture in self.data["pictures"]]
        self.panes = [pane["name"] for pane in self.data["panes"]]

    def pixels(self, picture: int, pane: int) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(self.rows[picture][pane]))).convert("RGB"))

    def numbers(self, pane: int, kind: str) -> list[Any]:
        return [picture["cells"][pane][kind] for picture in self.data["pictures"]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    path = tmp_path_factory.mktemp("gallery") / "page.html"
    folder = str(packaged.paths()[0].parent)
    assert main(["gallery", folder, "--model", "flowmo-mini", "--codecs", "webp", "jpeg", "--out", str(path)]) == 0
    return Made(path)


@pytest.fixture(scope="module")
def started() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(started: Browser, made: Made) -> Iterator[Browser]:
    """The page, freshly opened; nothing may have gone wrong in it, and nothing may have been fetched."""
    started.open(made.path)
    yield started
    assert started.messages() == []
    assert {url.partition(":")[0] for url in started.requests()} == {"file", "data"}


def test_what_is_seen_is_what_was_measured(browser: Browser, made: Made) -> None:
    """Every pixel of both panes, to the last bit, on its side of the divider."""
    shot = browser.screenshot("#stage")
    assert made.panes[:2] == ["Original", "flowmo-mini"]
    side = shot.shape[0]
    places = ((np.arange(256) + 0.5) / 256 * side).astype(int)
    seen = shot[places][:, places]
    parts = [(made.pixels(0, 0), slice(8, 116)), (made.pixels(0, 1), slice(140, 248))]  # the divider is in the middle
    for expected, columns in parts:
        rows = slice(8, 112)  # above the divider's handle
        assert np.array_equal(seen[rows, columns], expected[rows, columns])


def test_the_divider_is_dragged_by_mouse(browser: Browser) -> None:
    before, clip = browser.box("#divider"), "return getComputedStyle(document.querySelector('#left-layer')).clipPath"
    clipped, shot = browser.run(clip), browser.screenshot("#stage")
    assert browser.find("#divider").get_attribute("aria-valuenow") == "50"
    browser.drag("#divider", 120, 0)
    after, stage = browser.box("#divider"), browser.box("#stage")
    assert after["x"] - before["x"] == pytest.approx(120, abs=1)
    share = 50 + 100 * 120 / stage["width"]
    assert float(browser.find("#divider").get_attribute("aria-valuenow")) == pytest.approx(share, abs=1)
    assert browser.run(clip) != clipped
    moved = browser.screenshot("#stage")
    middle = shot.shape[1] // 2
    assert not np.array_equal(moved[:, middle + 30 : middle + 90], shot[:, middle + 30 : middle + 90])
    assert np.array_equal(moved[:, : middle - 30], shot[:, : middle - 30])
    browser.drag("#divider", int(browser.run("return innerWidth") - after["x"] - after["width"]), 0)
    assert browser.find("#divider").get_attribute("aria-valuenow") == "100"


def test_the_divider_is_moved_by_keys(browser: Browser) -> None:
    slider, name = browser.find("#divider"), browser.find("#name").text
    browser.run("document.querySelector('#divider').focus()")
    browser.press(RIGHT, RIGHT)
    assert slider.get_attribute("role") == "slider"
    assert slider.get_attribute("aria-valuenow") == "54"
    assert slider.get_attribute("aria-valuetext") == "Original 54 %, flowmo-mini 46 %"
    browser.press("\ue011")  # Home
    assert slider.get_attribute("aria-valuenow") == "0"
    browser.press("\ue010", LEFT)  # End
    assert slider.get_attribute("aria-valuenow") == "98"
    assert browser.find("#name").text == name


def test_zoom_and_pan_follow_in_all_panes(browser: Browser, made: Made) -> None:
    def views() -> np.ndarray:
        found = np.array(browser.run(VIEWS))
        assert found.shape == (2 + len(made.panes), 4)
        assert np.ptp(found, axis=0).max() < 1e-3
        return found[0]

    assert views() == pytest.approx([1, 1, 0, 0], abs=1e-3)
    browser.click("#zoom-in")
    browser.click("#zoom-in")
    assert views() == pytest.approx([2.25, 2.25, -0.625, -0.625], abs=1e-3)
    browser.actions().move_to_element_with_offset(browser.find("#stage"), 100, -100).click_and_hold().move_by_offset(
        60, 30
    ).release().perform()
    browser.settle()
    stage = browser.box("#stage")
    shift = [60 / stage["width"], 30 / stage["height"]]
    assert views() == pytest.approx([2.25, 2.25, -0.625 + shift[0], -0.625 + shift[1]], abs=2e-3)
    browser.click("#fit")
    assert views() == pytest.approx([1, 1, 0, 0], abs=1e-3)
    # By the wheel, and what is below the mouse stays there.
    browser.wheel(stage["x"] + stage["width"] * 0.25, stage["y"] + stage["height"] * 0.75, -200)
    zoom, _, x, y = views()
    assert zoom > 1.3
    assert [(0.25 - x) / zoom, (0.75 - y) / zoom] == pytest.approx([0.25, 0.75], abs=5e-3)
    browser.click("body")
    browser.press("0")
    assert views()[0] == 1
    browser.press("+")
    assert views()[0] == pytest.approx(1.5)
    styles = "return [...document.querySelectorAll('.view img')].map((image) => getComputedStyle(image).imageRendering)"
    browser.press(*"++++")  # until the small panes enlarge too
    assert set(browser.run(styles)) == {"pixelated"}
    browser.click("#smooth")
    assert set(browser.run(styles)) == {"auto"}


def test_keys_go_from_picture_to_picture(browser: Browser, made: Made) -> None:
    def shown() -> tuple[str, str]:
        alt = browser.find("#right-picture").get_attribute("alt")
        source = browser.find("#right-picture").get_attribute("src")
        picture = made.names.index(browser.find("#name").text)
        assert alt == f"{made.names[picture]}, flowmo-mini"
        assert source == f"data:image/webp;base64,{made.rows[picture][1]}"
        return browser.find("#name").text, browser.find("#place").text

    assert shown() == (made.names[0], "Picture 1 of 8")
    browser.press(RIGHT, RIGHT)
    assert shown() == (made.names[2], "Picture 3 of 8")
    browser.press(LEFT)
    assert shown() == (made.names[1], "Picture 2 of 8")
    browser.press(LEFT, LEFT, LEFT)
    assert shown() == (made.names[0], "Picture 1 of 8")
    assert not browser.find("#previous").is_enabled()
    browser.all("#strip button")[7].click()
    assert shown() == (made.names[7], "Picture 8 of 8")
    assert browser.find("#live").get_attribute("textContent") == f"Picture 8 of 8: {made.names[7]}"


def test_sorting(browser: Browser, made: Made) -> None:
    def order() -> list[str]:
        return [button.get_attribute("title") for button in browser.all("#strip button")]

    assert order() == made.names
    for kind, pane in (("PSNR", 1), ("LPIPS", 1), ("PSNR", 3), ("bytes", 4)):
        browser.choose("#sort", kind)
        browser.choose("#sort-pane", made.panes[pane])
        values = dict(zip(made.names, made.numbers(pane, kind.lower()), strict=True))
        assert [values[name] for name in order()] == sorted(values.values())
        assert browser.find("#name").text == order()[0]
        browser.click("#direction")
        assert [values[name] for name in order()] == sorted(values.values(), reverse=True)
        browser.click("#direction")
    browser.choose("#sort", "order given")
    assert order() == made.names


def test_any_two_panes(browser: Browser, made: Made) -> None:
    browser.choose("#left", "JPEG")
    browser.choose("#right", "WebP")
    left, right = (browser.find(f"#{side}-picture") for side in ("left", "right"))
    columns = [made.panes.index("JPEG"), made.panes.index("WebP")]
    assert [image.get_attribute("src")[23:] for image in (left, right)] == [made.rows[0][c] for c in columns]
    wins = sum(a < b for a, b in zip(*(made.numbers(c, "lpips") for c in columns), strict=True))
    assert f"by LPIPS JPEG in {wins}, WebP in {8 - wins} of 8 pictures" in browser.find("#verdict").text
    browser.click("#swap")
    assert left.get_attribute("alt") == f"{made.names[0]}, WebP"
    browser.click('[aria-label="Show Original on the left"]')
    assert left.get_attribute("alt") == f"{made.names[0]}, Original"
    assert browser.find("#left").get_attribute("value") == "0"
    assert browser.find("#verdict").text == ""
    browser.all("#panes .view")[2].click()
    assert right.get_attribute("alt") == f"{made.names[0]}, RGB thumbnail"


def test_the_totals(browser: Browser, made: Made) -> None:
    header, *lines = [[cell.text for cell in row.find_elements("css selector", "th, td")] for row in browser.all("tr")]
    table = {line[0]: dict(zip(header[1:], line[1:], strict=True)) for line in lines}
    assert list(table) == made.panes[1:]
    lpips = np.array([made.numbers(pane, "lpips") for pane in range(1, len(made.panes))])
    nearest = (lpips == lpips.min(0)).mean(1)
    for row, name in enumerate(made.panes[1:]):
        found = table[name]
        assert found["bytes in all"] == f"{sum(made.numbers(row + 1, 'bytes')):,}"
        assert found["LPIPS, mean"] == f"{lpips[row].mean():.3f}"
        assert found["PSNR, mean"] == f"{np.mean(made.numbers(row + 1, 'psnr')):.2f} dB"
        assert float(found["nearest by LPIPS"].removesuffix(" %")) == pytest.approx(100 * nearest[row], abs=0.51)
    assert table["flowmo-mini"]["bits per pixel"] == "0.219"


def test_light_and_dark(browser: Browser, made: Made) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = browser.run(ground)
    browser.click("#theme")
    dark = browser.run(ground)
    assert dark != light
    browser.open(made.path, dark=True)  # as the system says
    assert browser.run(ground) == dark
    browser.click("#theme")
    assert browser.run(ground) == light


def test_on_a_phone(browser: Browser, made: Made) -> None:
    browser.open(made.path, 390, 844)
    for _ in range(2):  # also with the longest line of controls
        assert browser.run("return document.documentElement.scrollWidth") == 390
        browser.choose("#sort", "LPIPS")
    stage = browser.box("#stage")
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 3
    browser.touch("touchStart", (x - 40, y), (x + 40, y))
    for spread in (60, 80, 100, 120):
        browser.touch("touchMove", (x - spread, y), (x + spread, y))
    browser.touch("touchEnd")
    browser.settle()
    assert np.array(browser.run(VIEWS))[:, 0] == pytest.approx(3, abs=0.1)
    assert browser.run("return document.documentElement.scrollWidth") == 390


def test_everything_has_a_name(browser: Browser) -> None:
    """Controls for those who do not see the page, and pictures too."""
    nameless = """return [...document.querySelectorAll("button, select, [role]")].filter((e) =>
      !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.closest("label") || e.textContent.trim()
        || e.querySelector("img[alt]"))).map((e) => e.outerHTML)"""
    assert browser.run(nameless) == []
    assert browser.run("return [...document.images].filter((i) => i.src && !i.alt).length") == 0
    assert browser.run("return document.querySelectorAll('#strip button[tabindex=\"0\"]').length") == 1


def test_harmless_names_stay_as_they_are(started: Browser, samples: Callable[[int], Tensor], tmp_path: Path) -> None:
    """Also one pane without a number: a title that would run, names that would."""
    write_page(tmp_path / "<b> #1?.html", EVIL, to_image(samples(48)[0]), title="<i>title</i>")
    started.open(tmp_path / "<b> #1?.html")
    titles = []
    for _ in EVIL:
        titles.append(json.loads(started.run("return JSON.stringify(document.querySelector('#name').textContent)")))
        started.press(RIGHT)
    assert titles == EVIL
    assert started.driver.title == "<i>title</i>"
    assert started.run("return document.querySelectorAll('#evil, i, b').length") == 0
    assert started.messages() == []
    assert {url.partition(":")[0] for url in started.requests()} == {"file", "data"}


def test_hundreds_of_pictures(started: Browser, samples: Callable[[int], Tensor], tmp_path: Path) -> None:
    """Only those that are seen are decoded."""
    write_page(tmp_path / "many.html", [f"{i:03}.png" for i in range(400)], to_image(samples(256)[0]))
    assert (tmp_path / "many.html").stat().st_size > 40_000_000
    started.open(tmp_path / "many.html")
    decoded = "return document.querySelectorAll('#strip img[src]').length"
    assert 5 < started.run(decoded) < 60
    started.choose("#sort", "name")
    started.click("#direction")
    assert started.find("#name").text == "399.png"
    assert started.run(decoded) < 120
    assert started.messages() == []
