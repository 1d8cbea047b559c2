"""
Readers notice what no consumer should see, and count what they read.
"""

from __future__ import annotations

import os
from pathlib import Path

from soak.readers import Reader, holding
from tests.support.revisions import make_revision
from tests.support.waiting import wait_until

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def write(folder: Path, number: int) -> None:
    for path, content in make_revision(number).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def show(link: Path, folder: Path) -> None:
    os.symlink(folder.name, link.with_name("new"))
    os.replace(link.with_name("new"), link)


def test_whole_trees_are_no_flaw_and_mixed_ones_are(tmp_path: Path) -> None:
    link = tmp_path / "link"
    for name, number in (("one", 1), ("two", 2), ("mixed", 4)):
        write(tmp_path / name, number)
    (tmp_path / "mixed" / "pkg0" / "module0.py").write_bytes(make_revision(1)["pkg0/module0.py"])
    show(link, tmp_path / "one")
    with Reader(tmp_path / "lock", "tree", link, 60, environment=ENVIRONMENT) as reader:
        wait_until(lambda: reader.reads, "it reads", 60)
        show(link, tmp_path / "two")
        wait_until(lambda: reader.changes == 1, "it has seen the second", 60)
        assert not reader.flaws

        show(link, tmp_path / "mixed")

        wait_until(lambda: reader.flaws, "it has seen the flaw", 60)
        reader.stop()
    assert all("mixed: " in flaw for flaw in reader.flaws)


def test_file_that_is_missing_or_half_is_a_flaw(tmp_path: Path) -> None:
    write(tmp_path / "dags", 1)
    file = tmp_path / "dags" / "pkg0" / "module0.py"
    with Reader(tmp_path / "lock", "files", tmp_path / "dags", environment=ENVIRONMENT) as reader:
        wait_until(lambda: reader.reads, "it reads", 60)
        assert not reader.flaws

        file.write_bytes(file.read_bytes()[:-1])
        wait_until(lambda: any("is no file of" in flaw for flaw in reader.flaws), "half a file", 60)
        file.unlink()
        wait_until(lambda: any("FileNotFound" in flaw for flaw in reader.flaws), "no file", 60)
        reader.stop()


def test_reader_waits_while_what_it_reads_is_damaged_by_hand(tmp_path: Path) -> None:
    write(tmp_path / "dags", 1)
    file = tmp_path / "dags" / "pkg0" / "module0.py"
    with Reader(tmp_path / "lock", "files", tmp_path / "dags", environment=ENVIRONMENT) as reader:
        wait_until(lambda: reader.reads, "it reads", 60)
        with holding(reader):
            good = file.read_bytes()
            file.unlink()
            before = reader.reads
            file.write_bytes(good)
        wait_until(lambda: reader.reads > before, "it goes on", 60)
        reader.stop()

    assert not reader.flaws


def test_reader_that_cannot_read_at_all_is_a_flaw(tmp_path: Path) -> None:
    with Reader(tmp_path / "lock", "nonsense", environment=ENVIRONMENT) as reader:
        reader.stop()

    assert any("reader of lock: it has ended with code 1" in flaw for flaw in reader.flaws)
