"""The publisher's commands on real servers, with and without conditional writes."""

import re
import subprocess
import sys
from pathlib import Path

from tests.scenarios.s3_sync.publish.place import BROKEN, A, B, C, Place
from tests.support.s3_sync.publishing import (
    PREFIX,
    read_release,
    write_files,
)
from tests.support.scripts import script


def test_publishes_lists_rolls_back_pins_and_prunes_releases(place: Place) -> None:
    first = place.publish(A)
    again = place.publish(A)
    second = place.publish(B, "--message", "Second")

    assert ("published", "unchanged", "published") == tuple(
        facts["result"] for facts in (first, again, second)
    )
    assert first["revision"] == again["revision"] == second["previous"]
    assert (len(A), sum(map(len, A.values()))) == (first["files"], first["size_bytes"])
    assert B == place.current()

    listed = place.publisher.succeed("releases")
    assert second["revision"] == listed["current"]
    states = {entry["revision"]: entry["state"] for entry in listed["releases"]}
    assert {second["revision"]: ["current"], first["revision"]: ["previous"]} == states
    few = place.publisher.succeed("releases", "--limit", "1")
    assert (listed["releases"][:1], 1) == (few["releases"], few["older"])
    newest = few["releases"][0]
    assert (len(B), "Second") == (newest["files"], newest["origin"]["message"])

    third = place.publish(C)
    # the second one goes further back
    for expected, files in ((second, B), (first, A)):
        back = place.publisher.succeed("rollback")
        assert ("rolled_back", expected["revision"]) == (
            back["result"],
            back["revision"],
        )
        assert files == place.current()
    none = place.publisher.run("rollback", "--output", "json")
    assert (3, "history_empty") == (none.code, none.facts()["reason"])
    place.publisher.succeed("rollback", third["revision"])
    assert first["revision"] == place.publisher.succeed("rollback")["revision"]

    pin = place.publisher.succeed("pin", second["revision"][7:19])
    assert second["revision"] == pin["revision"]
    assert "unpinned" == place.publisher.succeed("unpin", second["revision"])["result"]
    prune = ("prune-releases", "--keep-count", "0", "--keep-for", "0")
    assert [] == place.publisher.succeed(*prune)["removed"], (
        "nothing younger than a day goes"
    )
    assert A == place.current()


def test_the_commands_need_none_of_the_daemons_packages(on_moto: Place) -> None:
    """`pip install s3-sync` in CI; the daemon needs `s3-sync[daemon]`."""
    program = script(
        on_moto.dags.with_name("s3-sync-without-packages"),
        "import sys; sys.modules |= dict.fromkeys(('anycrc', 'httptools')); "
        "sys.argv[0] = 's3-sync'; from s3_sync.__main__ import main; main()",
        sys.executable,
    )
    publisher = on_moto.publisher_with(DEST_PATH=str(on_moto.home / "target"))
    dags = write_files(on_moto.dags, A)

    published = publisher.run("publish", dags, program=Path(program))
    daemon = publisher.run(program=Path(program))

    assert (0, "") == (published.code, published.err)
    assert A == on_moto.current()
    assert 3 == daemon.code and "s3-sync[daemon]" in daemon.out
    assert '"package_missing"' in daemon.out


def test_promotes_a_release_unchanged(place: Place) -> None:
    first = place.publish(A)["revision"]
    prd = place.publisher_with(KEY_PATH="prd")
    url = f"s3://{place.bucket}/prd"

    assert "promoted" == prd.succeed("promote", place.publisher.url, url)["result"]
    second = place.publish(B)["revision"]
    broken = place.publish(BROKEN)["revision"]

    refused = prd.run("promote", place.publisher.url, url, "--gate", "syntax")
    assert 2 == refused.code and "a.py" in refused.err
    answer = prd.succeed(
        "promote", place.publisher.url, url, "--gate", "syntax", second[7:19]
    )
    assert (second, first) == (answer["revision"], answer["previous"])
    assert {"added": ["docs/\u00dcberblick.md"], "changed": ["a.py"]} == {
        name: answer["changes"][name] for name in ("added", "changed")
    }
    assert broken == place.publisher.succeed("releases")["releases"][0]["revision"]
    there = [
        (key, body) for key, body in place.bodies().items() if key.startswith("prd/")
    ]
    assert B == read_release({key.replace("prd/", PREFIX): body for key, body in there})
    for option in ("--profile", "--source-profile"):
        said = prd.run("promote", place.publisher.url, url, option, "nobody")
        assert 3 == said.code and "nobody" in said.err, said


def test_lists_the_differences_between_releases(on_moto: Place) -> None:
    on_moto.publish(A)
    after = on_moto.publish(B)["revision"]
    said = on_moto.publisher.run("diff", "previous", after[7:19])

    first, *lines = said.out.splitlines()
    assert (0, "1 added, 1 changed, 2 removed") == (said.code, first.split(": ")[1])
    assert ["  + docs/\u00dcberblick.md", "  ~ a.py"] == lines[:2]
    same = on_moto.publisher.succeed("diff", "current", f"{on_moto.dags}/")
    assert {"added": [], "changed": [], "removed": []} == same["changes"]
    wrong = on_moto.publisher.run("diff", "current", "v7")
    assert 2 == wrong.code and "'v7' is not a revision" in wrong.err


def test_prints_a_readable_summary_of_a_publish(place: Place) -> None:
    write_files(place.dags, {**A, ".git/config": b"", "__pycache__/a.pyc": b""})

    ran = place.publisher.run("publish", place.dags)

    lines = ran.out.splitlines()
    assert (0, "") == (ran.code, ran.err)
    assert "Left out: 2 (.git/, __pycache__/)" == lines[0]
    assert "the gate is off" in lines[1]
    assert lines[-1].startswith("Published ")
    assert lines[-1].endswith(f": 3 files, {sum(map(len, A.values()))} B")
    table = place.publisher.run("releases").out.splitlines()
    assert table[0].split()[:2] == ["REVISION", "CREATED"] and "current" in table[1]


def test_escapes_control_characters_in_names_and_messages(on_moto: Place) -> None:
    on_moto.publish(A, "--message", "\x1b]0;owned\x07 red \u202e")
    (on_moto.dags / "bad\x1b[31m").symlink_to("/etc/passwd")

    listed = on_moto.publisher.run("releases").out
    refused = on_moto.publisher.run("publish", on_moto.dags).err

    assert "owned" in listed and "bad" in refused
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", listed + refused)


def test_exits_by_what_was_done_although_its_output_cannot_be_written(
    on_moto: Place,
) -> None:
    on_moto.publish(A, "--message", "caf\u00e9")
    publisher = on_moto.publisher_with(PYTHONIOENCODING="ascii")
    dags = write_files(on_moto.dags, B)

    with open("/dev/full", "w") as full:
        ran = publisher.run("publish", dags, stdout=full)
    listed = publisher.run("releases", stdout=subprocess.PIPE)

    assert (0, "") == (ran.code, ran.err)
    assert B == on_moto.current()
    assert 0 == listed.code and "caf\\xe9" in listed.out
