"""A browser without a window, for tests that look at pages as a person does: Debian's chromium and its driver."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


@contextmanager
def open_browser() -> Iterator[Any]:
    """A selenium driver; it is to be resized by `resize`, and its console is read by `errors_in`."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(120)
    try:
        yield driver
    finally:
        driver.quit()


def resize(driver: Any, width: int, height: int = 1000) -> None:
    """Of the page itself: a window has a least width."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def errors_in(driver: Any) -> list[str]:
    """What the console has had to complain of since it was asked last."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "ERROR")]


def take_picture(driver: Any, path: Path, height: int) -> None:
    """The page from its top on, so many pixels high."""
    width = driver.execute_script("return document.documentElement.clientWidth")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    how = {"format": "png", "captureBeyondViewport": True, "clip": clip}
    path.write_bytes(base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", how)["data"]))
