"""
Wrong arguments, unreadable files and missing servers are reported; nothing is written.
"""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from s3_sync.release.format import pin_key
from tests import Facts, Texts
from tests.scenarios.s3_sync.publish.site import A, B, Site
from tests.support.daemon import S3_SYNC
from tests.support.machine.users import as_user
from tests.support.machine.volumes import small_volume
from tests.support.program import own_port
from tests.support.s3_sync.publishing import PREFIX, write_files
from tests.support.s3_sync.releases import make_release

PINNED = make_release({"pinned.py": b""})


@pytest.fixture
def refused(site: Site) -> Iterator[Site]:
    """
    A bucket with two releases, one pinned, and a folder; the bucket must stay
    unchanged.
    """
    write_files(site.dags, A)
    for release in (PINNED, make_release(A, at=datetime.now(UTC))):
        site.s3.put_all(release.objects(), PREFIX)
    site.s3.put(PREFIX + pin_key(PINNED.revision), b"{}")
    before = dict(site.s3.objects)
    yield site
    assert before == site.s3.objects


PROMOTE = ["promote", "{url}", "{url}"]
UNKNOWN = "release_unknown"
MEANT = "settings_rejected"


@pytest.mark.parametrize(
    ("arguments", "reason", "names"),
    [
        (["publish", "{dags}/../nowhere"], "folder_missing", ["/nowhere' is not a folder"]),
        (["publish", "{dags}", "bucket/prefix"], MEANT, ["'bucket/prefix'", "s3://BUCKET/PREFIX"]),
        (["publish", "{dags}", "s3://"], MEANT, ["AWS_BUCKET"]),
        (["publish", "{dags}", "--exclude", "!"], "ignore_rule_invalid", ["--exclude", "'!'"]),
        (["publish", "{dags}", "--airflow-python", "/nowhere"], "",
         ["'/nowhere' is not an executable program"]),
        (["publish", "{dags}", "--airflow-python", "/bin/sh"], "", ["require --gate airflow"]),
        ([*PROMOTE, "--gate", "airflow", "--gate-allow", "("], "", ["'(' missing )"]),
        (["publish", "{dags}", "--sign-key", ""], "", ["'' is empty: name a file, or omit it"]),
        (["rollback", "HEAD~1"], UNKNOWN, ["'HEAD~1' names no", "64 hexadecimal digits"]),
        (["prune-releases", "--keep-from", "/dev/null"], "", ["'/dev/null' is empty"]),
        (["prune-releases", "--keep-from", "{keep}"], "", ["keep'", "has a line", '["sha256-']),
    ],
)  # fmt: skip
def test_reports_wrong_arguments_and_writes_nothing(
    refused: Site, arguments: list[str], reason: str, names: list[str]
) -> None:
    keep = refused.folder / "keep"
    keep.write_text(f"{'0' * 40}\n\n{json.dumps([PINNED.revision])}\n")

    ran = refused.told(
        *(
            one.format(dags=refused.dags, url=refused.url, keep=keep)
            for one in arguments
        )
    )

    assert (2, reason) == (ran.code, ran.facts()["reason"] if ran.out else ""), ran
    assert all(name in ran.err for name in names), ran.err


def sparse(path: Path, size_bytes: int) -> None:
    path.touch()
    os.truncate(path, size_bytes)


def many(path: Path) -> None:
    """
    One file of the largest size, and links to it, which are read only once counted.
    """
    sparse(path, 1 << 28)
    for number in range(8):
        path.with_name(f"link{number}").symlink_to(path.name)


def links(path: Path) -> None:
    """
    As many links to a folder as it has empty folders.
    """
    for number in range(110):
        (path / str(number)).mkdir(parents=True)
        path.with_name(f"link{number}").symlink_to(path.name)


ODD: Facts = {
    "out": (lambda path: path.symlink_to("/etc/hostname"), "link_outside", ": /etc/hostname"),
    "circle": (lambda path: path.symlink_to("."), "link_outside", "to one that contains it"),
    "large": (lambda path: sparse(path, 1 << 32), "file_too_large", "268435456 bytes"),
    "many": (many, "release_too_large", "or 2147483648 bytes"),
    "links": (links, "release_too_large", "is one of over 10000 folders"),
    "ours": (lambda path: path.with_name(".s3-sync").mkdir(), "name_refused", "reserved"),
    "empty": (lambda path: path.with_name("a.py").rename(path.with_name("a.pyc")), "folder_empty",
              "no files to release (1 left out)"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_refuses_what_cannot_be_released_before_it_writes_anything(
    refused: Site, name: str
) -> None:
    make, reason, said = ODD[name]
    make(refused.dags / "odd")

    assert said in refused.fails(reason, "publish", refused.dags, code=2).err


def test_names_everything_that_cannot_be_released(refused: Site) -> None:
    (refused.dags / "one").symlink_to("nowhere")
    os.mkfifo(refused.dags / "pipe")

    said = refused.fails("link_outside", "publish", refused.dags, code=2).err

    assert "'one'" in said and "'pipe' is not a regular file of at most" in said


def test_reports_a_full_temporary_folder(refused: Site) -> None:
    (refused.dags / "a.bin").write_bytes(os.urandom(1 << 20))
    with small_volume(refused.folder / "volume", "512k") as volume:
        refused.environment["TMPDIR"] = str(volume)
        ran = refused.fails("temporary_failed", "publish", refused.dags, code=2)
    assert "No space left" in ran.err and "TMPDIR" in ran.err


def test_dry_runs_of_writing_commands_write_nothing(refused: Site) -> None:
    for words in (
        ("publish", str(write_files(refused.dags, B))),
        ("promote", refused.url, refused.prd),
        ("rollback", PINNED.revision),
    ):
        assert "planned" == refused.succeed(*words, "--dry-run")["result"]


@pytest.mark.parametrize("name", ["a.py", "sub", ""])
def test_names_the_file_or_folder_that_it_cannot_read(
    refused: Site, open_folder: Path, name: str
) -> None:
    """Also a folder that can be listed and not entered, and the folder itself."""
    write_files(open_folder / "dags", A | {"sub/b.py": b""})
    (open_folder / "dags" / name).chmod(0o644 if name == "sub" else 0)
    refused.environment |= {"HOME": "/", "TMPDIR": "/tmp"}

    ran = refused.run(
        "publish",
        open_folder / "dags",
        "--output",
        "json",
        program=as_user(open_folder / "bin", S3_SYNC, 4711, 0),
    )

    assert (2, "file_unreadable") == (ran.code, ran.facts()["reason"]), ran
    assert f"dags/{name}".strip("/") in ran.err and "Permission denied" in ran.err


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{own_port()}"},
            "endpoint_unreachable",
        ),
        ({"AWS_ENDPOINT_URL": "http://no-such-host.invalid"}, "name_unresolved"),
        ({"AWS_ACCESS_KEY_ID": ""}, "credentials_missing"),
        # It once meant: write nothing.
        ({"S3_SYNC_DRY_RUN": "true"}, "settings_rejected"),
    ],
)
def test_reports_an_unreachable_server_or_missing_credentials(
    refused: Site, settings: Texts, reason: str
) -> None:
    refused.environment |= {"AWS_CONFIG_FILE": "/dev/null", **settings}

    assert (
        refused.fails(
            reason, "publish", refused.dags, code=2 if "settings" in reason else 3
        ).err.count("\n")
        <= 2
    )
