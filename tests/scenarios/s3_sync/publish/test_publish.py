"""The publisher's commands on real servers, with and without conditional writes."""

import re
import subprocess
import sys

from s3_sync.publisher.releases import size_text
from tests.scenarios.s3_sync.publish.place import A, B, C, Place
from tests.scenarios.s3_sync.publish.site import PRUNE, Site
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

    assert ("published", "unchanged") == (first["result"], again["result"])
    a = first["revision"]
    b = second["revision"]
    assert a == again["revision"] == second["previous"]
    assert (len(A), sum(map(len, A.values()))) == (first["files"], first["size_bytes"])
    assert B == place.current()

    listed = place.succeed("releases")
    assert [(b, ["current"]), (a, ["previous"])] == [
        (entry["revision"], entry["state"]) for entry in listed["releases"]
    ]
    few = place.succeed("releases", "--limit", "1")
    assert (listed["releases"][:1], 1) == (few["releases"], few["older"])
    newest = few["releases"][0]
    assert (len(B), "Second") == (newest["files"], newest["origin"]["message"])

    c = place.publish(C)["revision"]
    # the second one goes further back
    for expected, files in ((b, B), (a, A)):
        assert expected == place.succeed("rollback")["revision"]
        assert files == place.current()
    place.fails("history_empty", "rollback")
    place.succeed("rollback", c)
    assert a == place.succeed("rollback")["revision"]

    assert b == place.succeed("pin", b[7:19])["revision"]
    assert "unpinned" == place.succeed("unpin", b)["result"]
    assert [] == place.succeed(*PRUNE)["removed"], "nothing younger than a day goes"
    assert A == place.current()


def test_the_commands_need_none_of_the_daemons_packages(site: Site) -> None:
    """`pip install s3-sync` in CI: the extras `daemon` and `sign` are compiled."""
    program = site.folder / "s3-sync-without-packages"
    script(
        program,
        "import sys; lacking = ('anycrc', 'httptools', 'cryptography'); "
        "sys.modules |= dict.fromkeys(lacking); "
        "sys.argv[0] = 's3-sync'; from s3_sync.__main__ import main; main()",
        sys.executable,
    )
    site.environment["DEST_PATH"] = str(site.folder / "target")
    dags = write_files(site.dags, A)

    published = site.run("publish", dags, program=program)
    signed = site.run("publish", dags, "--sign-key", "k.pem", program=program)
    daemon = site.run(program=program)

    assert (0, "") == (published.code, published.err)
    assert "pip install 's3-sync[sign]'" in signed.err
    assert A == site.current()
    assert 3 == daemon.code and "s3-sync[daemon]" in daemon.out
    assert '"package_missing"' in daemon.out


def test_promotes_a_release_unchanged(place: Place) -> None:
    first = place.publish(A)["revision"]
    promote = ("promote", place.url, f"s3://{place.bucket}/prd")

    assert "promoted" == place.succeed(*promote)["result"]
    second = place.publish(B)["revision"]
    place.publish(C)

    answer = place.succeed(*promote, "--gate", "syntax", second[7:19])
    assert (second, first, "syntax") == tuple(
        answer[name] for name in ("revision", "previous", "gate")
    )
    changes = answer["changes"]
    assert (["docs/\u00dcberblick.md"], ["a.py"]) == (
        changes["added"],
        changes["changed"],
    )
    assert B == read_release(
        {
            key.replace("prd/", PREFIX): body
            for key, body in place.bodies().items()
            if key.startswith("prd/")
        }
    )
    for option in ("--profile", "--source-profile"):
        said = place.run(*promote, option, "nobody")
        assert 3 == said.code and "nobody" in said.err, said


def test_lists_the_differences_between_releases(site: Site) -> None:
    site.publish(A)
    said = site.run("diff", "previous", site.publish(B)["revision"][7:19])

    first, *lines = said.out.splitlines()
    assert (0, "1 added, 1 changed, 2 removed") == (said.code, first.split(": ")[1])
    assert ["  + docs/\u00dcberblick.md", "  ~ a.py"] == lines[:2]
    site.succeed("promote", site.url, site.prd)
    # two URLs need no bucket in the environment
    site.environment |= {"AWS_BUCKET": "", "KEY_PATH": ""}
    assert [[], [], []] == [
        *site.succeed("diff", site.url, site.prd)["changes"].values()
    ]


def test_prints_a_readable_summary_of_a_publish(site: Site) -> None:
    write_files(site.dags, {**A, ".git/config": b"", "__pycache__/a.pyc": b""})

    left, gate, *_, done = site.run("publish", site.dags).out.splitlines()

    assert "Left out: 2 (.git/, __pycache__/)" == left and "the gate is off" in gate
    assert done.startswith("Published ") and done.endswith(": 3 files, 411 B")
    table = site.run("releases").out.splitlines()
    assert table[0].split()[:2] == ["REVISION", "CREATED"] and "current" in table[1]


def test_prints_sizes_in_a_readable_unit() -> None:

    assert "0 B 1023 B 1.0 KiB 5.0 MiB 1,024.0 MiB 3.0 GiB" == " ".join(
        map(size_text, (0, 1023, 1024, 5 << 20, (1 << 30) - 1, 3 << 30))
    )


def test_escapes_control_characters_in_names_and_messages(site: Site) -> None:
    site.publish(A, "--message", "\x1b]0;owned\x07 red \u202e")
    (site.dags / "bad\x1b[31m").symlink_to("/etc/passwd")

    listed = site.run("releases").out
    refused = site.run("publish", site.dags).err

    assert "owned" in listed and "bad" in refused
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", listed + refused)


def test_exits_by_what_was_done_although_its_output_cannot_be_written(
    site: Site,
) -> None:
    site.publish(A, "--message", "caf\u00e9")
    site.environment["PYTHONIOENCODING"] = "ascii"
    dags = write_files(site.dags, B)

    with open("/dev/full", "w") as full:
        ran = site.run("publish", dags, stdout=full)
        refused = site.run("publish", dags / "nowhere", stderr=full)
    listed = site.run("releases", stdout=subprocess.PIPE)

    assert (0, "") == (ran.code, ran.err)
    assert B == site.current()
    assert 2 == refused.code
    assert 0 == listed.code and "caf\\xe9" in listed.out
