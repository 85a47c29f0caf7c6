"""A real browser without a window, and what the tests ask of a page in it."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SIZE = (1280, 900)


class Browser:
    """One page, opened from the disk."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, width: int = SIZE[0], height: int = SIZE[1], dark: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 600})
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(page.resolve().as_uri())
        self.settle()

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def press(self, *keys: str) -> None:
        """To whatever has the focus."""
        self.actions().send_keys(*keys).perform()
        self.settle()

    def click(self, selector: str) -> None:
        self.find(selector).click()
        self.settle()

    def choose(self, selector: str, text: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.find(selector)).select_by_visible_text(text)
        self.settle()

    def actions(self) -> Any:
        from selenium.webdriver.common.action_chains import ActionChains

        return ActionChains(self.driver, duration=50)

    def drag(self, selector: str, dx: int, dy: int) -> None:
        """With the mouse, from the middle of an element."""
        self.actions().click_and_hold(self.find(selector)).move_by_offset(dx, dy).release().perform()
        self.settle()

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    def wheel(self, x: float, y: float, delta: float) -> None:
        event = {"type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": delta}
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)
        self.settle()

    def settle(self) -> None:
        """Until every picture is decoded and the page has been drawn."""
        self.driver.execute_async_script(
            "const done = arguments[0];"
            "Promise.allSettled([...document.images].filter((i) => i.src).map((i) => i.decode()))"
            ".then(() => requestAnimationFrame(() => requestAnimationFrame(() => done())));"
        )

    def box(self, selector: str) -> dict[str, float]:
        return self.run("return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()", selector)

    def screenshot(self, selector: str) -> np.ndarray:
        """uint8 H W 3 of an element."""
        box = self.box(selector)
        clip = {"x": box["x"] + self.run("return scrollX"), "y": box["y"] + self.run("return scrollY"), "scale": 1}
        clip |= {"width": box["width"], "height": box["height"]}
        order = {"format": "png", "captureBeyondViewport": True, "clip": clip}
        data = self.driver.execute_cdp_cmd("Page.captureScreenshot", order)["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))

    def messages(self) -> list[str]:
        """Errors and warnings of the console since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Every address that was asked for since then."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Skips where there is no Chromium, no driver for it or no selenium."""
    selenium = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install 'flowmo[dev]'")
    from selenium.webdriver.chrome.service import Service

    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("needs Chromium and its driver: apt install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = binary
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "force-color-profile=srgb"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = selenium.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(started)
    finally:
        started.quit()
