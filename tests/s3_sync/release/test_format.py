"""The format of releases: ids, manifests and pointers, and what is refused."""

import gzip
import hashlib
import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from s3_sync.names import is_revision, short
from s3_sync.release.format import (
    COMMAS_LIMIT,
    FILES_LIMIT,
    HISTORY_LIMIT,
    INFLATED_LIMIT_BYTES,
    MANIFEST_LIMIT_BYTES,
    ORIGIN,
    POINTER_LIMIT_BYTES,
    Invalid,
    Pointer,
    Turn,
    Untrusted,
    parse_manifest,
    read_pointer,
    write_pointer,
)
from s3_sync.release.signature import Keys
from tests import Bodies, Facts
from tests.s3_sync.release import independent
from tests.support.s3_sync.releases import ABSENT, make_release
from tests.support.s3_sync.signing import Key

NAMES = (
    "é", "e\u0301", "ß", "😀", "\U0010ffff", "\u2028", "\ufeff",
    "İ", " ", "\x7f", "\\", '"', "{", "%2e", "A", "a", "a.",
    "a..", "...", ".airflowignore", ".S3-SYNCED", "CON", "nul.py", "x" * 252, "ü" * 126, "NaN",
)  # fmt: skip


def odd_files(seed: int) -> Bodies:
    """
    Return files that deflate well, not at all, or too well, with names of all kinds.
    """
    dice = random.Random(seed)
    files = {}
    for number in range(200):
        path = "/".join(
            [
                *dice.choices(NAMES, k=dice.choice((0, 1, 1, 2, 5))),
                f"{number}{dice.choice(NAMES)[: 200 - number]}",
            ]
        )
        files[path] = dice.choice(
            (b"", bytes(9_999), b"x = 1\n" * 99, dice.randbytes(99))
        )
    return files


@pytest.mark.parametrize("seed", range(3))
def test_the_id_is_that_of_airflows_manifest_bundles(seed: int) -> None:
    files = odd_files(seed)
    executable = set(list(files)[::3])

    expected = independent.id_of(
        {
            "path": path,
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "executable": path in executable,
        }
        for path, content in files.items()
    )

    assert expected == make_release(files, executable=executable).revision
    assert is_revision(expected) and not is_revision(expected.removeprefix("sha256-"))
    assert expected[7:19] == short(expected)


@pytest.mark.parametrize("signs", [False, True])
def test_a_reader_written_from_the_page_accepts_releases(signs: bool) -> None:
    files = odd_files(7)
    key = Key()
    release = make_release(files, executable=list(files)[:5])
    objects = release.objects()
    if signs:
        objects["current.json"] = key.signer.sign(
            objects["current.json"], "bucket", "dags/"
        )

    version, found = independent.read(
        objects, ("bucket", "dags/"), key.raw if signs else b""
    )

    assert release.revision == version
    assert {
        path: (body, path in list(files)[:5]) for path, body in files.items()
    } == found


def test_a_manifest_survives_writing_and_reading() -> None:
    release = make_release(odd_files(3), origin={"by": "ada", "message": "é"})

    assert release.manifest == parse_manifest(release.manifest_bytes, release.revision)


RELEASE = make_release({"a.py": b"print()\n" * 30, "b/c.py": b"", "b/d.py": b"x"})


def with_facts(**changed: Any) -> bytes:
    """Return the manifest with these fields changed."""
    return gzip.compress(
        json.dumps(
            json.loads(gzip.decompress(RELEASE.manifest_bytes)) | changed
        ).encode()
    )


def row(path: str = "a.py", **more: Any) -> Facts:
    return {
        "executable": False,
        "path": path,
        "sha256": "0" * 64,
        "size": 1,
        "stored": 1,
    } | more


def manifest_of(*rows: Mapping[str, Any], **more: Any) -> tuple[bytes, str]:
    """Return a manifest with these rows, whose id is correct, and the id."""
    version = independent.id_of(rows)
    return with_facts(**{"version": version, "files": list(rows), **more}), version


ROWS = {
    "no files": [],
    "not a row": [["a.py"]],
    "unsorted": [row("b"), row("a")],
    "twice": [row("a"), row("a")],
    "file and folder": [row("a"), row("a/b")],
    "parent": [row("../a")],
    "control": [row("a\nb")],
    "compiled": [row("pkg/a.pyc")],
    "cache": [row("__pycache__/a.py")],
    "airflow's manifest": [row(".airflow-bundle-manifest.json")],
    "size is true": [row(size=True)],
    "size is huge": [row(size=10**400)],
    "negative": [row(size=-1, stored=-1)],
    "too large": [row(size=1 << 40, stored=1 << 40)],
    "more stored than size": [row(size=1, stored=2)],
    "inflates too much": [row(size=1_000, stored=1)],
    "no digest": [row(sha256="0")],
    "empty with another digest": [row(size=0, stored=0)],
    "digest in capitals": [row(sha256="A" * 64)],
    "beyond the bundle": [row(size=9_999, stored=9_999)],
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_refuses_rows_that_are_no_files(rows: list[Any]) -> None:
    try:
        data, version = manifest_of(*rows)
    except TypeError:
        data, version = manifest_of(files=rows)

    with pytest.raises(Invalid) as refused:
        parse_manifest(data, version)

    assert "its files belong to" not in str(refused.value)


def with_text(old: bytes, new: bytes) -> Callable[[], bytes]:
    """Return what makes the manifest with another text in one place."""
    text = gzip.decompress(RELEASE.manifest_bytes)
    assert 1 == text.count(old)
    return lambda: gzip.compress(text.replace(old, new))


def with_items(items: bytes) -> Callable[[], bytes]:
    """Return what makes the manifest with a list more, which nobody reads."""
    return with_text(b'{"format"', b'{"x":[' + items + b'1],"format"')


TEXTS: dict[str, Callable[[], bytes]] = {
    "not compressed": lambda: gzip.decompress(RELEASE.manifest_bytes),
    "cut off": lambda: RELEASE.manifest_bytes[:-1],
    "more behind it": lambda: RELEASE.manifest_bytes + b"\0",
    "not ASCII": with_text(b"a.py", "ä.py".encode()),
    "a name twice": with_text(b'{"format"', b'{"format":3,"format"'),
    "NaN": with_items(b"NaN,"),
    "another format": with_text(b'"format":3', b'"format":2'),
    "another schema": with_text(b'schema_version":1', b'schema_version":2'),
    "a schema that is true": with_text(b'schema_version":1', b'schema_version":true'),
    "other content": with_text(b'"a.py"', b'"A.py"'),
    "a list": lambda: gzip.compress(b"[]"),
    "deep": lambda: gzip.compress(b"[" * 100_000),
    "a bomb": lambda: gzip.compress(bytes(INFLATED_LIMIT_BYTES + 1)),
    "too long": lambda: bytes(MANIFEST_LIMIT_BYTES + 1),
    "commas": with_items(b"1," * COMMAS_LIMIT),
    "lists": with_items(b"[[[[]]]]," * (COMMAS_LIMIT // 4)),
    "empty objects": with_items(b"{}," * (2 * FILES_LIMIT)),
    "fields": lambda: with_facts(**dict.fromkeys(map(str, range(100)), 1)),
    "no digest of the bundle": lambda: with_facts(bundle={"sha256": "0", "size": 999}),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_refuses_a_malformed_manifest_and_that_of_another_release(
    text: Callable[[], bytes],
) -> None:
    with pytest.raises(Invalid):
        parse_manifest(text(), RELEASE.revision)
    with pytest.raises(Invalid, match="its files belong to"):
        parse_manifest(RELEASE.manifest_bytes, ABSENT)


def test_ignores_unknown_fields_and_odd_facts_for_people() -> None:

    found = parse_manifest(
        with_facts(new={"path": 1}, origin={"by": 7, "new": "x", "message": "m" * 999}),
        RELEASE.revision,
    )

    assert (RELEASE.manifest.files, {"message": "m" * 500}) == (
        found.files,
        found.origin,
    )


# --- pointers


def turn(sequence: int) -> Turn:
    return Turn(ABSENT, sequence, "now")


def test_a_pointer_survives_writing_and_reading_and_stays_below_its_limit() -> None:
    pointer = Pointer(
        turn(30),
        dict.fromkeys(ORIGIN, "\u2028" * 500),
        tuple(turn(n) for n in range(HISTORY_LIMIT, 0, -1)),
    )

    data = write_pointer(pointer)

    assert (pointer, "") == read_pointer(data, None, "", "")
    assert len(data) < POINTER_LIMIT_BYTES


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"version": "0" * 64}, {"sequence": 0}, {"sequence": 2**53},
     {"history": {}}, {"history": [{}]},
     {"history": [turn(1).facts()]}, {"sequence": 9, "history": [turn(1).facts(), turn(2).facts()]},
     {"sequence": 99, "history": [turn(n).facts() for n in range(21, 0, -1)]}],
)  # fmt: skip
def test_refuses_a_malformed_pointer(change: Facts) -> None:

    with pytest.raises(Invalid):
        read_pointer(
            json.dumps(json.loads(RELEASE.pointer_bytes) | change).encode(),
            None,
            "",
            "",
        )


# --- signatures


def test_a_signature_covers_every_byte_and_the_place() -> None:
    key = Key()
    other = Key()
    data = key.signer.sign(RELEASE.pointer_bytes, "bucket", "dags/")
    both = Keys({**key.signer.keys.by_id, **other.signer.keys.by_id})

    for keys in (key.signer.keys, both):
        assert key.key_id == read_pointer(data, keys, "bucket", "dags/")[1]
    at = len(RELEASE.pointer_bytes)
    other_content = f"{key.key_id} signed other content"
    for changed, bucket, prefix, said in (
        (b" " + data, "bucket", "dags/", other_content),
        (data, "bucket2", "dags/", "for another place"),
        (data, "bucket", "prd/", "for another place"),
        (data[:at], "bucket", "dags/", "it is not signed"),
        (data + b"\n", "bucket", "dags/", "it is not signed"),
        (data.replace(b"ed25519", b"rsa"), "bucket", "dags/", "malformed, or not of"),
        (data[:-8] + b'AAA="}\n', "bucket", "dags/", other_content),
    ):
        with pytest.raises(Untrusted, match=said):
            read_pointer(changed, both, bucket, prefix)
    with pytest.raises(Untrusted, match=f"by {key.key_id}, which is not trusted"):
        read_pointer(data, other.signer.keys, "bucket", "dags/")
