"""
Tables, plots and the page that they go into.
"""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.report import machine, seconds, table, times, write_part, write_plot


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.000_123, "0.12 ms"), (0.0123, "12.3 ms"), (0.9996, "1.00 s"), (17.34, "17.3 s")],
)
def test_durations_have_three_digits(value: float, text: str) -> None:
    assert text == seconds(value)


def test_ratios_have_three_digits() -> None:
    assert ["217x", "10.5x", "3.22x"] == [times(217.4), times(10.52), times(3.219)]


def test_table_is_markdown() -> None:
    assert "| a | b |\n| --- | --: |\n| 1 | 2 |\n" == table(["a", "b"], [["1", "2"]])


def test_part_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("A\n<!-- bench:x -->\nold\n<!-- end -->\n<!-- bench:x y -->\n<!-- end -->\nB\n")

    write_part("x", "new \\1\n", page)

    assert (
        "A\n<!-- bench:x -->\nnew \\1\n<!-- end -->\n<!-- bench:x y -->\n<!-- end -->\nB\n"
        == page.read_text()
    )


def test_page_without_the_part_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- bench:x -->\nold\n<!-- end -->\n")

    with pytest.raises(ValueError, match="bench:y"):
        write_part("y", "new", page)
    assert "old" in page.read_text()


def test_machine_has_no_name_of_a_host() -> None:
    sentence = machine({"tool": "1.2"})

    assert "cores" in sentence and "Linux" in sentence and "tool 1.2" in sentence
    assert Path("/proc/sys/kernel/hostname").read_text().strip() not in sentence


def test_plot_stands_alone_and_longer_bars_are_more(tmp_path: Path) -> None:
    groups = {"few & many": {"peer <1>": 10.0, "ours": 0.01}}

    write_plot("x", "A title", groups, ours="ours", folder=tmp_path)

    text = (tmp_path / "benchmarks-x.svg").read_text()
    root = ElementTree.fromstring(text)
    bars = {
        bar.get("class"): float(bar.get("width", 0)) for bar in root.iter() if "rect" in bar.tag
    }
    assert bars["peer"] > bars["ours"] > 0
    assert text.count("http") == 1  # the name of the format itself
    assert "prefers-color-scheme: dark" in text
    assert {"A title", "few & many", "peer <1>", "10.0 s", "10.0 ms"} <= {
        (part.text or "") for part in root.iter()
    }
