"""
A soak detects growth, a sidecar that misbehaves, and an incomplete tree.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from soak import report
from soak.__main__ import Crew
from soak.flat import Sample, series_of
from soak.post import Post
from soak.readers import Reader
from soak.station import Station
from tests.support.daemon import SidecarProcess
from tests.support.revisions import make_revision
from tests.support.waiting import wait_until

STEADY = {
    "rss_kib": 40_000,
    "descriptors": 20,
    "threads": 6,
    "children": 0,
    "zombies": 0,
    "files": 100,
}


@pytest.mark.parametrize(
    ("figure", "seconds_for_one", "names"),
    [
        ("rss_kib", 0.2, ["memory in KiB"]),
        ("descriptors", 100, ["descriptors"]),
        ("threads", 100, ["threads"]),
        ("children", 400, ["children"]),
        ("zombies", 400, ["zombies"]),
        ("files", 1, ["files on its volume"]),
        ("rss_kib", 1_000, []),
    ],
)
def test_reports_each_growing_figure(figure: str, seconds_for_one: float, names: list[str]) -> None:
    samples = [
        Sample(float(n), **{**STEADY, figure: STEADY[figure] + int(n / seconds_for_one)})
        for n in range(600)
    ]

    assert names == [name for name, series in series_of(samples).items() if series.flaw]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("none", ""),
        ("/healthz answers 503", "/healthz answered 503"),
        ("/readyz answers 503", "/readyz answered 503"),
        ("ends", "it ended without a signal"),
        ("exit code 1", "SIGTERM ended it with code 1"),
        ("traceback", "stray lines in its log: ['Traceback"),
        ("bug", "a bug: "),
        ("chatter", "1001 log lines"),
    ],
)
def test_reports_each_fault_of_a_sidecar(fault: str, said: str, tmp_path: Path) -> None:
    fake = SidecarProcess(Path(__file__).with_name("fake_sidecar.py"), {"FAULT": fault}, tmp_path)
    with Post("spared", fake, is_spared=True) as post:
        post.watch()
        wait_until(lambda: len(post.samples) >= 2 or post.flaws, "some looks", 60)
        post.stop()

    assert bool(said) == bool(post.flaws)
    assert all(said in flaw for flaw in post.flaws), post.flaws


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("tree", make_revision(1)["pkg0/module0.py"], "mixed: "),
        ("files", make_revision(2)["pkg0/module0.py"][:-1], "is not a file of"),
    ],
)
def test_a_mixed_tree_or_a_truncated_file_is_a_flaw(
    kind: str, content: bytes, said: str, tmp_path: Path
) -> None:
    for path, text in make_revision(2).items():
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / path).write_bytes(text)
    (tmp_path / "link").symlink_to("tree")
    what: tuple[object, ...] = (tmp_path / "link", 60) if kind == "tree" else (tmp_path / "tree",)
    with Reader(tmp_path / "lock", kind, *what, environment={"PATH": "/usr/bin:/bin"}) as reader:
        wait_until(lambda: reader.reads, "it reads", 60)
        assert not reader.flaws

        (tmp_path / "tree/pkg0/module0.py").write_bytes(content)

        wait_until(lambda: reader.flaws, "it has seen the flaw", 60)
        reader.stop()
    assert all(said in flaw for flaw in reader.flaws), reader.flaws


class Broken(Station):
    """A station that fails to start."""

    name = "broken"

    def set_up(self) -> None:
        raise RuntimeError("no database")


def test_a_station_that_fails_to_start_is_a_flaw_in_the_report() -> None:
    crew = Crew([Broken], "1", verbose=False)
    crew.start(0)
    assert crew.wait(60)

    told = report.summary(report.Run(0, "1", crew.stations, crew.left_out))

    assert "1 flaws" in told
    assert "broken: the station failed: " in told and "no database" in told
