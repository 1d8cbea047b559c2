"""
Releases that contradict themselves, their id or their sequence are refused, signed or not: here the
honest key has signed them all, so nothing but what they say is wrong.
"""

import gzip
import zlib
from collections.abc import Iterator

import pytest

from tests.s3_sync.release.attacks import LAST, Stage, staged
from tests.s3_sync.release.forging import (
    MODE,
    PATH,
    SHA256,
    SIZE,
    STORED,
    Rows,
    cell,
    entry,
    forged,
    in_history,
    inner,
    named,
    packed,
    pointer,
    pointer_bytes,
    put,
    twice,
    without,
)


def huge(rows: Rows) -> Rows:
    """Files that say how large they are, and together are too large."""
    more = [[f"y{n}.bin", 3 << 20, 250 << 20, "0" * 64, "0644"] for n in range(9)]
    return sorted([*rows, *more])


def bomb(_: bytes) -> bytes:
    return zlib.compress(b"[" + b" " * (65 << 20) + b"]", 1)


def brackets(_: bytes) -> bytes:
    return zlib.compress(b"[" + b"[]," * 2_000_001 + b"[]]", 1)


OTHER = "0" * 64

PATHS = {
    "a path that leads out": named("../evil.py"),
    "a path that leads out from within": named("pkg/../../evil.py"),
    "a path that leads out and back": named("../dags/evil.py"),
    "a path that is absolute": named("/tmp/evil.py"),
    "a path with a dot first": named("./a.py"),
    "a path with a dot within": named("pkg/./b.py"),
    "a path with two dots at its end": named("pkg/.."),
    "a path of one dot": named("."),
    "a path of two dots": named(".."),
    "a path with two slashes": named("pkg//b.py"),
    "a path that ends in a slash": named("pkg/"),
    "a path of a slash": named("/"),
    "no path": named(""),
    "a path with a NUL": named("a.py\0.txt"),
    "a path of ours": named(".s3-sync/published.json"),
    "a path of ours for a file": named(".s3-sync"),
    "a path among our snapshots": named(".s3-sync/snapshots/evil/a.py"),
    "a name that is too long": named("x" * 256),
    "a name that is too long in UTF-8": named("ü" * 128),
    "a path that is too long": named("/".join(["x" * 250] * 17)),
    "a path that is too deep": named("/".join(["x"] * 201)),
    "half a surrogate pair": forged(text=lambda text: text.replace(b'["a.py"', b'["\\ud800"')),
    "a surrogate of Python": forged(text=lambda text: text.replace(b'["a.py"', b'["\\udcff"')),
    "a path that is a number": forged(told=cell(PATH, 1)),
    "a path that is a list": forged(told=cell(PATH, ["a.py"])),
    "files that are not sorted": forged(rows=lambda rows: [rows[1], rows[0], *rows[2:]]),
    "chunks that are not sorted": forged(rows=lambda rows: [*rows[-1:], *rows[:-1]], ends=(1, 4)),
    "a file twice": forged(rows=lambda rows: [rows[0], *rows]),
    "a file and a folder": named("a.py", "a.py/b.py"),
    "a file and a folder of two chunks": named(LAST, f"{LAST}/b.py"),
    "a file and a folder far above": named("pkg", "pkg/a/b/c/d.py"),
}

ROWS = {
    "a mode of everything": forged(rows=cell(MODE, "0777")),
    "a mode of another's user": forged(rows=cell(MODE, "4755")),
    "a mode of a symlink": forged(rows=cell(MODE, "120777")),
    "a mode in short": forged(rows=cell(MODE, "644")),
    "a mode of a number": forged(told=cell(MODE, 420)),
    "no mode": forged(told=cell(MODE, None)),
    "an executable bit that is not in the id": forged(told=cell(MODE, "0755")),
    "a digest that is not in the id": forged(told=cell(SHA256, OTHER)),
    "a path that is not in the id": forged(told=cell(PATH, "a.pz")),
    "a digest in capitals": forged(rows=cell(SHA256, "A" * 64)),
    "a digest that is short": forged(rows=cell(SHA256, "0" * 63)),
    "a digest of other digits": forged(rows=cell(SHA256, "\u0660" * 64)),
    "a digest with blanks": forged(rows=cell(SHA256, "00 " * 21 + "0")),
    "a negative size": forged(rows=cell(SIZE, -1)),
    "a negative stored size": forged(rows=cell(STORED, -1)),
    "a size with a fraction": forged(told=cell(SIZE, 24.0)),
    "a size in words": forged(told=cell(SIZE, "24")),
    "a size of true": forged(told=cell(STORED, True)),
    "no size": forged(told=cell(SIZE, None)),
    "more stored than there is": forged(rows=cell(SIZE, 1)),
    "a file that is a bomb": forged(rows=cell(SIZE, 24 * 101)),
    "a file of nothing stored": forged(rows=cell(STORED, 0)),
    "a file that is too large": forged(
        rows=lambda rows: cell(SIZE, (256 << 20) + 1)(cell(STORED, 3 << 20)(rows))
    ),
    "a size of a hundred digits": forged(rows=cell(SIZE, 10**100)),
    "files that are too large together": forged(rows=huge),
    "another place in the bundle": forged(told=cell(STORED, 23)),
    "four columns": forged(told=lambda rows: [row[:4] for row in rows]),
    "six columns": forged(told=lambda rows: [[*row, 0] for row in rows]),
    "rows of objects": forged(told=lambda rows: [{"path": row[0]} for row in rows]),
    "an object of rows": forged(told=lambda rows: {"rows": rows}),
    "a chunk of null": forged(told=lambda _: None),
    "a chunk without rows": forged(told=lambda _: []),
    "a row in a list": forged(told=lambda rows: [rows]),
}

JSON = {
    "a chunk with NaN": forged(text=lambda text: text.replace(b", 24,", b", NaN,")),
    "a chunk with Infinity": forged(text=lambda text: text.replace(b", 24,", b", Infinity,")),
    "a chunk with a comma too many": forged(text=lambda text: text[:-1] + b",]"),
    "a chunk with more behind it": forged(text=lambda text: text + b"[]"),
    "a chunk with a byte order mark": forged(text=lambda text: b"\xef\xbb\xbf" + text),
    "a chunk in UTF-16": forged(text=lambda text: text.decode().encode("utf-16")),
    "a chunk in Latin-1": forged(text=lambda text: text.replace(b"a.py", b"\xe4.py")),
    "a chunk with a long form of a dot": forged(
        text=lambda text: text.replace(b"a.", b"a\xc0\xae")
    ),
    "a chunk with a comment": forged(text=lambda text: b"/* */" + text),
    "a chunk with other quotes": forged(text=lambda text: text.replace(b'"', b"'")),
    "a chunk of lists in lists": forged(text=lambda _: b"[" * 100_000 + b"]" * 100_000),
    "a chunk of a number without end": forged(
        text=lambda t: t.replace(b", 24,", b", %s," % (b"2" * 5_000))
    ),
    "a chunk of little but brackets": forged(blob=brackets),
    "an empty chunk": forged(text=lambda _: b""),
}

CHUNKS = {
    "a chunk that is a bomb": forged(blob=bomb),
    "a chunk that is not compressed": forged(blob=zlib.decompress),
    "a chunk of another format": forged(blob=lambda blob: gzip.compress(zlib.decompress(blob))),
    "a chunk without its end": forged(blob=lambda blob: blob[:-1]),
    "a chunk without its checksum": forged(blob=lambda blob: blob[:-4] + bytes(4)),
    "a chunk with more behind it": forged(blob=lambda blob: blob + b"\0"),
    "a chunk in two streams": forged(blob=lambda blob: zlib.compress(b"") + blob),
    "two chunks in one": forged(ends=(4,)),
    "a chunk that ends too early": forged(ends=(1, 2, 4)),
    "a chunk that is said to be longer": entry(1, lambda one: one + 1),
    "a chunk that is said to be shorter": entry(1, lambda one: one - 1),
    "a chunk that is said to be empty": entry(1, lambda one: 0),
    "a chunk of a negative length": entry(1, lambda one: -one),
    "a chunk of a length without end": entry(1, lambda one: 1 << 80),
    "a chunk of a length with a fraction": entry(1, lambda one: one + 0.0),
    "a chunk that takes more": entry(2, lambda one: one + 1),
    "a chunk that takes less": entry(2, lambda one: one - 1),
    "a chunk that takes nothing": entry(2, lambda one: 0),
    "a chunk that takes less than nothing": entry(2, lambda one: -one),
    "a chunk with another digest": entry(0, lambda one: OTHER),
    "a chunk with its digest in capitals": entry(0, lambda one: one.upper()),
    "a chunk twice": forged(chunks=lambda entries: [entries[0], *entries]),
    "a chunk that is missing": forged(chunks=lambda entries: entries[:1]),
    "the chunks of each other": forged(
        chunks=lambda entries: [
            [b[0], *a[1:]] for a, b in zip(entries, reversed(entries), strict=True)
        ]
    ),
    "a chunk of two columns": forged(chunks=lambda entries: [one[:2] for one in entries]),
    "a chunk of four columns": forged(chunks=lambda entries: [[*one, 0] for one in entries]),
    "no chunks": forged(chunks=lambda _: []),
}

LINES = {
    "the revision of another": forged(facts=put("revision", OTHER)),
    "no revision": forged(facts=without("revision")),
    "the format before": forged(facts=put("format", 1)),
    "a format of a truth": forged(facts=put("format", True)),
    "a format with a fraction": forged(facts=put("format", 2.0)),
    "a format in words": forged(facts=put("format", "2")),
    "no format": forged(facts=without("format")),
    "a bundle elsewhere": forged(facts=inner("bundle", put("sha256", "../../other/bundle"))),
    "a bundle in capitals": forged(facts=inner("bundle", put("sha256", "A" * 64))),
    "a bundle without a name": forged(facts=inner("bundle", without("sha256"))),
    "a bundle that ends before its files": forged(facts=inner("bundle", put("size_bytes", 99))),
    "an empty bundle": forged(facts=inner("bundle", put("size_bytes", 0))),
    "a negative bundle": forged(facts=inner("bundle", put("size_bytes", -1))),
    "a bundle without end": forged(facts=inner("bundle", put("size_bytes", 1 << 62))),
    "no bundle": forged(facts=without("bundle")),
    "a bundle in a list": forged(facts=inner("bundle", lambda one: [one])),
    "no time": forged(facts=without("created_at")),
    "a time without an offset": forged(facts=put("created_at", "2026-11-20T15:00:00")),
    "no totals": forged(facts=without("totals")),
    "totals of words": forged(facts=put("totals", {"files": "4", "size_bytes": 1})),
    "a first line that is a list": forged(lines=lambda two: b"[" + two.replace(b"\n", b"]\n", 1)),
    "a first line that is too long": forged(facts=put("note", "x" * (64 << 10))),
    "an empty first line": forged(lines=lambda two: b"\n" + two),
    "a name twice in the first line": forged(lines=twice(b'"format": 2')),
    "NaN in the first line": forged(facts=put("note", float("nan"))),
    "a byte order mark before the first line": forged(lines=lambda two: b"\xef\xbb\xbf" + two),
    "a first line of no JSON": forged(lines=lambda two: b"x" + two),
    "a second line that is a list": forged(
        lines=lambda two: two.replace(b'{"chunks": ', b"").replace(b"]]}\n", b"]]\n")
    ),
    "a list of chunks under another name": forged(
        lines=lambda two: two.replace(b"chunks", b"parts")
    ),
    "two lists of chunks": forged(
        lines=lambda two: two.replace(b'{"chunks"', b'{"chunks": [], "chunks"')
    ),
}

POINTERS = {
    "a sequence of zero": pointer(put("sequence", 0)),
    "a negative sequence": pointer(put("sequence", -101)),
    "a sequence that is too large": pointer(put("sequence", 1 << 53)),
    "a sequence without end": pointer(put("sequence", 10**300)),
    "a sequence with a fraction": pointer(
        lambda facts: {**facts, "sequence": facts["sequence"] + 0.5}
    ),
    "a sequence of a whole fraction": pointer(put("sequence", 1e9)),
    "a sequence in words": pointer(put("sequence", "9999999")),
    "a sequence of a truth": pointer(put("sequence", True)),
    "a sequence of null": pointer(put("sequence", None)),
    "no sequence": pointer(without("sequence")),
    "a sequence twice": pointer_bytes(twice(b'"sequence": 1')),
    "a sequence of NaN": pointer(put("sequence", float("nan"))),
    "a history of the same sequence": in_history(put("sequence", 1 << 52)),
    "a history that goes forward": pointer(inner("history", lambda turns: [*turns, turns[0]])),
    "a history that is too long": pointer(
        lambda facts: {
            **facts,
            "history": [{**facts["history"][0], "sequence": 90 - n} for n in range(21)],
        }
    ),
    "a history that is an object": pointer(put("history", {})),
    "no history": pointer(without("history")),
    "a history of names": pointer(put("history", [OTHER])),
    "a negative sequence in the history": in_history(put("sequence", -1)),
    "a path in the history": in_history(put("revision", "../../../etc/passwd")),
    "no time in the history": in_history(without("since")),
    "a turn that restores itself": pointer(lambda facts: {**facts, "restores": facts["sequence"]}),
    "a turn that restores what comes": pointer(put("restores", 1 << 52)),
    "a turn that restores nothing": pointer(put("restores", 0)),
    "a revision in capitals": pointer(put("revision", "A" * 64)),
    "a revision in short": pointer(put("revision", "0" * 12)),
    "a revision with a line feed": pointer(put("revision", f"{OTHER}\n")),
    "a revision that leads elsewhere": pointer(put("revision", "../../other/releases/x")),
    "a revision of other digits": pointer(put("revision", "\u0660" * 64)),
    "no revision to point to": pointer(without("revision")),
    "a manifest of no bytes": pointer(inner("manifest", put("size_bytes", 0))),
    "a manifest that is too large": pointer(inner("manifest", put("size_bytes", (64 << 20) + 1))),
    "a manifest that is all head": pointer(inner("manifest", put("head_bytes", 1 << 20))),
    "a negative head": pointer(inner("manifest", put("head_bytes", -1))),
    "a digest of one letter": pointer(inner("manifest", put("sha256", "x"))),
    "no manifest": pointer(without("manifest")),
    "no time of the turn": pointer(without("since")),
    "a time without an offset of the turn": pointer(put("since", "2026-11-20T15:00:00")),
    "a time that never comes": pointer(put("since", "2026-02-30T00:00:00Z")),
    "a time in the year 10000": pointer(put("since", "10000-01-01T00:00:00Z")),
    "a time before the first year": pointer(put("since", "0001-01-01T00:00:00+23:59")),
    "a time of a number": pointer(put("since", 1_700_000_000)),
    "a pointer in a list": pointer(lambda facts: [facts]),
    "a pointer of null": pointer(lambda _: None),
    "a pointer of the format that comes": pointer(put("format", 3)),
    "a pointer without a format": pointer(without("format")),
    "a pointer with more behind it": pointer_bytes(lambda body: body + b"{}\n"),
    "a pointer with a byte order mark": pointer_bytes(lambda body: b"\xef\xbb\xbf" + body),
    "a pointer in UTF-16": pointer_bytes(lambda body: body.decode().encode("utf-16") + b"\n"),
    "a pointer of lists in lists": pointer_bytes(lambda _: b"[" * 30_000 + b"]" * 30_000 + b"\n"),
    "a pointer that is too long": pointer(put("note", "x" * (64 << 10))),
    "a pointer of a number without end": pointer_bytes(twice(b'"note": ' + b"9" * 5_000)),
}

# What the files are, and not what is said of them.
BUNDLES = {
    "files of each other": forged(
        rows=lambda rows: cell(SHA256, rows[1][SHA256])([rows[0], *rows[1:]])
    ),
    "a file of another digest": forged(rows=cell(SHA256, OTHER)),
    "a bundle of zeros": forged(bundle=lambda data: bytes(len(data))),
    "a bundle that is shifted": forged(bundle=lambda data: data[1:] + b"\0"),
    "a bundle that is longer than it says": lambda scene: {
        name: body + b"\0" if body and name.startswith("bundles/") else body
        for name, body in scene.objects().items()
    },
    "a file that is longer than it says": forged(rows=packed(SIZE, lambda size: size - 1)),
    "a file that is shorter than it says": forged(rows=packed(SIZE, lambda size: size + 1)),
    "a file that is cut off": forged(rows=packed(STORED, lambda stored: stored - 1)),
    "a file that is not compressed and says that it is": forged(rows=cell(SIZE, 25)),
}

FORGED = {
    **{name: ("release_invalid", one) for part in (PATHS, ROWS, JSON, CHUNKS, LINES, POINTERS)
       for name, one in part.items()},
    **{name: ("bundle_corrupt", one) for name, one in BUNDLES.items()},
}  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("forged")) as stage:
        yield stage


def test_what_nobody_has_altered_is_taken(stage: Stage) -> None:
    """Else all that follows would be refused for another reason."""
    scene = stage.scene()
    stage.put(forged()(scene))

    assert [scene.next.revision] * 2 == stage.sync()
    stage.recover()


@pytest.mark.parametrize("name", FORGED)
def test_what_contradicts_itself_is_refused_whoever_has_signed_it(stage: Stage, name: str) -> None:
    reason, attack = FORGED[name]
    stage.put(attack(stage.scene()))
    stage.assert_both_refuse(reason)
