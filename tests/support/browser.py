"""
Headless Chromium, which opens pages as a user would; controlled through a pipe.

The pipe speaks the Chrome DevTools Protocol: JSON messages, each terminated by a NUL
(https://chromedevtools.github.io/devtools-protocol/). No port is opened.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import struct
import subprocess
import time
import zlib
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

PATIENCE_SECONDS = 120.0
LANDMARKS = {"banner", "complementary", "contentinfo", "main", "navigation", "region", "search"}
# Some of these keep Chromium from contacting its vendor at every start; tests cannot reach it.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--disable-lcd-text",
    "--remote-debugging-pipe",
)
# The lowest contrast of any text: (lighter + 0.05) / (darker + 0.05), as WCAG 2 defines it.
_LOWEST_CONTRAST = """
(() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => parts(color).slice(0, 3).map((value) => value / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    const color = getComputedStyle(node).backgroundColor;
    return parts(color)[3] === 0 && node.parentElement ? behind(node.parentElement) : color;
  };
  const texts = [...document.body.querySelectorAll('*')].filter((node) =>
    [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
  return Math.min(...texts.map((node) => {
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
})()
"""
# Decodes a PNG (in base64, replaces %s) to RGBA pixels, also in base64.
_PIXELS = """
(async () => {
  const bytes = Uint8Array.from(atob('%s'), (char) => char.charCodeAt(0));
  const image = await createImageBitmap(new Blob([bytes]));
  const canvas = new OffscreenCanvas(image.width, image.height).getContext('2d');
  canvas.drawImage(image, 0, 0);
  const { data } = canvas.getImageData(0, 0, image.width, image.height);
  const reader = new FileReader();
  return new Promise((done) => {
    reader.onload = () => done(reader.result.split(',')[1]);
    reader.readAsDataURL(new Blob([data]));
  });
})()
"""


def skip_without_browser() -> None:
    """
    Skip a test if Chromium is not installed.
    """
    if shutil.which("chromium") is None:
        pytest.skip("needs chromium: make setup-test as root")


@dataclass(frozen=True)
class Seen:
    """
    A page after it has loaded.
    """

    title: str
    language: str
    landmarks: list[str]
    """Landmark roles, by which screen readers navigate."""
    text: str
    """The visible text, with whitespace collapsed."""
    tags: set[str]
    """The names of all elements."""
    complaints: list[str]
    """Script output, and requests that the browser blocked."""
    requests: list[str]
    """The URLs of all requests."""
    overflow_pixels: int
    """By how many pixels the page is wider than the window."""
    lowest_contrast: float
    """The lowest contrast of any text to its background: 1 to 21."""


class Browser:
    """
    A browser with one tab and its own profile; a `with` statement starts and ends it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._events: list[Any] = []
        self._buffer = b""
        self._session = ""

    def __enter__(self) -> Self:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # Chromium reads from descriptor 3 and writes to 4; the shell sets them up.
        exchange = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        profile = f"--user-data-dir={self._folder / 'profile'}"
        self._process = subprocess.Popen(
            ["bash", "-c", exchange, "bash", "chromium", *_FLAGS, profile],
            env={"PATH": "/usr/bin:/bin", "HOME": str(self._folder)},
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs_in, theirs_out),
        )
        os.close(theirs_in)
        os.close(theirs_out)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._out)  # Chromium exits when its pipe is closed
        try:
            self._process.wait(PATIENCE_SECONDS)
        finally:
            self._process.kill()
            os.close(self._in)

    def open(
        self,
        url: str,
        *,
        width: int = 1000,
        is_dark: bool = False,
        has_scripts: bool = True,
    ) -> Seen:
        """
        Load a page and return its content.

        Args:
            width: The width of the window in CSS pixels; its height is 700.
            is_dark: Whether the user prefers dark pages.
            has_scripts: Whether pages may run scripts.
        """
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=700,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Emulation.setScriptExecutionDisabled", value=not has_scripts)
        self._events.clear()
        self._call("Page.navigate", url=url)
        self._wait_for("Page.loadEventFired")
        text = " ".join(self._evaluate("document.body.innerText").split())
        tags = self._evaluate("[...document.querySelectorAll('*')].map((e) => e.localName)")
        sizes = self._call("Page.getLayoutMetrics")
        complaints = [
            json.dumps(event["params"])
            for event in self._events
            if event["method"]
            in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        ]
        requests = [
            event["params"]["request"]["url"]
            for event in self._events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return Seen(
            title=self._evaluate("document.title"),
            language=self._evaluate("document.documentElement.lang"),
            landmarks=[role for role in self._roles() if role in LANDMARKS],
            text=text,
            tags=set(tags),
            complaints=complaints,
            requests=requests,
            overflow_pixels=sizes["cssContentSize"]["width"] - width,
            lowest_contrast=self._evaluate(_LOWEST_CONTRAST),
        )

    def picture(self, to: Path) -> None:
        """
        Save the whole open page as a small PNG; the page must be allowed to run scripts.
        """
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        shot = self._call(
            "Page.captureScreenshot", captureBeyondViewport=True, clip={**size, "scale": 1}
        )
        pixels = base64.b64decode(self._evaluate(_PIXELS % shot["data"]))
        to.write_bytes(_small_png(pixels, size["width"]))

    def _roles(self) -> list[str]:
        nodes = self._call("Accessibility.getFullAXTree")["nodes"]
        return [node["role"]["value"] for node in nodes]

    def _evaluate(self, expression: str) -> Any:
        answer = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def _call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            if "method" in answer:
                self._events.append(answer)

    def _wait_for(self, method: str) -> None:
        while not any(event["method"] == method for event in self._events):
            self._events.append(self._read())

    def _read(self) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while b"\0" not in self._buffer:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self._in], [], [], left)[0], "the browser does not answer"
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "the browser ended"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


def _small_png(pixels: bytes, width: int) -> bytes:
    """
    Encode pixels as a PNG with 16 shades per color and at most 256 colors, enough for text.
    """
    shades = bytes(round(value / 17) * 17 for value in range(256))
    colors = array("I", pixels.translate(shades))
    palette = sorted(set(colors))
    numbers = {color: number for number, color in enumerate(palette)}
    indices = bytes(numbers[color] for color in colors)
    rows = range(0, len(indices), width)
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, len(rows), 8, 3, 0, 0, 0),
        b"PLTE": b"".join(color.to_bytes(4, "little")[:3] for color in palette),
        b"IDAT": zlib.compress(b"".join(b"\0" + indices[row : row + width] for row in rows), 9),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts.items()
    )
