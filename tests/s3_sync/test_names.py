"""Keys as paths, which stay inside the target; digests that identify content."""

import hashlib
import os
from types import SimpleNamespace

import pytest
from awscli.customizations.s3.filters import Filter
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.names import (
    NAME_LIMIT_BYTES,
    RESERVED,
    compile_filter,
    has_digest,
    skip_reason_of,
)
from s3_sync.release.format import bundle_key, manifest_key, pin_key

TARGET = "/opt/airflow/dags"
BODY = [b"print(", b"1)\n"]
MD5 = hashlib.md5(b"".join(BODY)).hexdigest()
SHA256 = hashlib.sha256(b"".join(BODY)).hexdigest()

PARTS = st.one_of(
    st.sampled_from(
        [
            "",
            ".",
            "..",
            "...",
            RESERVED,
            ".S3-SYNC",
            "a",
            " ",
            "~",
            "-",
            "\\",
            "\0",
            "\n",
            "a\0b",
        ]
    ),
    st.sampled_from(
        ["..\0", "\udcff", "é", "é", "x" * 255, "x" * 256, "é" * 128, "%2e%2e"]
    ),
    st.text(max_size=8),
)
PATHS = st.lists(PARTS, max_size=20).map("/".join)


@given(PATHS)
def test_accepted_paths_stay_inside_the_target(path: str) -> None:
    if skip_reason_of(path, len(TARGET)):
        return

    joined = os.path.join(TARGET, path)
    assert joined == os.path.normpath(joined)
    assert joined.startswith(f"{TARGET}/")
    assert not joined.startswith(f"{TARGET}/{RESERVED}/")
    assert joined != f"{TARGET}/{RESERVED}"
    assert "\0" not in path
    assert max(len(part.encode()) for part in path.split("/")) <= NAME_LIMIT_BYTES
    assert len(joined.encode()) <= 4095


@pytest.mark.parametrize(
    "path",
    ["a", "a/b/c.py", ".hidden", "...", "..a", "a..", "a b", "ü", "a\nb", "a\\b", ".s3-synced",
     "bundles/a.zip", "x/" + bundle_key("a" * 64), "current.json", "pins/" + "g" * 64,
     "a/.s3-sync", "C:", "~root", "-rf", "x" * 255, "é" * 127],
)  # fmt: skip
def test_accepts_unusual_names(path: str) -> None:
    assert skip_reason_of(path, len(TARGET)) is None


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/a", "unsafe_path"), ("a//b", "unsafe_path"), ("a/..", "unsafe_path"),
     ("a\0b", "unsafe_path"),
     ("caf\udce9", "unsafe_path"), (".s3-sync", "reserved"), (".S3-Sync/managed", "reserved"),
     ("x" * 256, "name_too_long"), ("é" * 128, "name_too_long"),
     ("/".join(["x" * 200] * 21), "name_too_long"), ("d/" * 200 + "x", "too_deep"),
     (bundle_key("a" * 64), "release"), (manifest_key(f"sha256-{'a' * 64}"), "release"),
     (pin_key(f"sha256-{'0' * 64}"), "release")],
)  # fmt: skip
def test_refuses_paths_with_a_reason(path: str, reason: str) -> None:
    assert skip_reason_of(path, len(TARGET)) == reason


def test_the_path_limit_includes_the_target() -> None:
    path = "/".join(["x" * 100] * 40)
    room = 4095 - len(path) - 1

    assert skip_reason_of(path, room) is None
    assert skip_reason_of(path, room + 1) == "name_too_long"


GLOBS = [
    "*.py",
    "dags/*",
    "*[ab].sql",
    "x?z",
    "a/b.py",
    "*",
    "[!a]*",
    "a*b*c",
    "*.",
    "ü*",
    "a|b",
    "a.b",
]
FILES = [
    "a.py",
    "dags/x.txt",
    "d/dags/x.txt",
    "qa.sql",
    "qc.sql",
    "xyz",
    "a/b.py",
    "aXbYc",
    "ü",
    "a.PY",
    "a.py\n",
    "two\nlines.py",
]


def test_filters_agree_with_the_aws_command_line() -> None:
    """Compare with `aws s3 sync --exclude "*" --include GLOB --exclude OTHER`."""
    root = "bucket/prefix/"
    files = [SimpleNamespace(src=root + path, src_type="s3") for path in FILES]
    for glob in GLOBS:
        for other in GLOBS:
            patterns = [("exclude", "*"), ("include", glob), ("exclude", other)]
            theirs = [
                file.src.removeprefix(root)
                for file in Filter(patterns, root, root).call(files)
            ]
            is_wanted = compile_filter([glob], [other])

            assert theirs == [path for path in FILES if is_wanted(path)], (glob, other)


@pytest.mark.parametrize("etag", [MD5, SHA256, f"{SHA256}+x"])
def test_each_digest_matches_only_its_content(etag: str) -> None:
    assert has_digest(etag, BODY)
    assert not has_digest(etag, [b"other"])


@pytest.mark.parametrize(
    "etag", ["", f"{MD5}-2", f"{MD5}+x", MD5.upper(), f"x{SHA256}"]
)
def test_an_etag_that_is_not_a_digest_matches_no_content(etag: str) -> None:
    assert not has_digest(etag, BODY)
