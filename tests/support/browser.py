"""
Headless Chromium, as a person would open a page in it.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

PATIENCE_SECONDS = 120.0
# It looks for its maker's hosts at every start; no test has a way there.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
)


def skip_without_browser() -> None:
    """
    Skip a test where there is no Chromium.
    """
    if shutil.which("chromium") is None:
        pytest.skip("needs chromium (make setup installs it as root)")


@dataclass(frozen=True)
class Seen:
    """
    A page after it was loaded.
    """

    tags: list[str]
    """Names of all elements."""
    text: str
    """All text but that of comments, blanks joined."""
    complaints: list[str]
    """What the browser's console said: scripts, and what the page's policy refused."""


class Browser:
    """
    One browser with a profile of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, url: str) -> Seen:
        """
        Load a page and return what became of it.
        """
        said = self._run("--dump-dom", url)
        parser = _Parser()
        parser.feed(said.stdout)
        console = [line for line in said.stderr.splitlines() if ":CONSOLE" in line]
        return Seen(parser.tags, " ".join("".join(parser.words).split()), console)

    def picture(self, url: str, width: int, height: int, to: Path) -> None:
        """
        Take a picture of a page, as PNG.
        """
        self._run(f"--window-size={width},{height}", f"--screenshot={to}", url)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["chromium", *_FLAGS, f"--user-data-dir={self._folder / 'profile'}", *arguments],
            env={"PATH": "/usr/bin:/bin", "HOME": str(self._folder)},
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=True,
        )


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.words += (data, " ")
