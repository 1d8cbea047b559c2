"""
Corrupted, truncated, swapped and hostile pointers, manifests and bundles are refused with a clear
reason: what is published stays, nothing outside the target is touched, and the next good release
is taken without a restart.
"""

import copy
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3_sync.release.names import POINTER_KEY, manifest_key
from tests.scenarios.s3_sync.siege import (
    LAYOUTS,
    Attack,
    Fortress,
    content_name,
    fortress,
    next_files,
)
from tests.scenarios.s3_sync.weather import Vitals
from tests.support.fake_s3 import FakeS3
from tests.support.releases import make_release
from tests.support.scripted import published
from tests.support.shelf import PREFIX, release_daemon

pytestmark = pytest.mark.timeout(3_600)

PARTS = ("pointer", "manifest", "bundle")


@pytest.fixture(scope="module", params=LAYOUTS)
def besieged(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fortress]:
    """
    One daemon in each layout for all attacks.
    """
    with fortress(tmp_path_factory.mktemp("siege"), request.param) as besieged:
        before = Vitals.of(besieged.daemon.pid)
        yield besieged
        assert besieged.daemon.is_running()
        besieged.recover()
        after = Vitals.of(besieged.daemon.pid)
        assert after.descriptors <= before.descriptors + 3, "descriptors are left open"
        assert after.threads <= before.threads + 1
        assert 0 == besieged.daemon.terminate().code


def name_of(attack: Attack, part: str) -> str:
    """
    The key of one of the three objects.
    """
    return {
        "pointer": POINTER_KEY,
        "manifest": attack.manifest_name,
        "bundle": attack.bundle_name,
    }[part]


# --- one attack after another, each with the reason that it must get

Change = Callable[[Attack], object]


def drop(part: str) -> Change:
    return lambda attack: attack.objects.pop(name_of(attack, part))


def alter(part: str, change: Callable[[bytes], bytes]) -> Change:
    def act(attack: Attack) -> None:
        name = name_of(attack, part)
        attack.objects[name] = change(attack.objects[name])

    return act


def flip(part: str) -> Change:
    return alter(part, lambda body: body[:-30] + bytes([body[-30] ^ 1]) + body[-29:])


def swap(part: str) -> Change:
    """
    The object of another release lies under the name of this one.
    """

    def act(attack: Attack) -> None:
        other = make_release({"other.py": b"from another release\n" * 9})
        names = dict(zip(PARTS, reversed(other.objects()), strict=True))
        body = other.objects()[names[part]]
        if part == "bundle":  # long enough that every range can be served
            body = (body * 50)[: len(attack.objects[attack.bundle_name])]
        attack.objects[name_of(attack, part)] = body

    return act


def facts(**changed: Any) -> Change:
    """
    A manifest that says something else, with a pointer that fits it.
    """

    def act(attack: Attack) -> None:
        attack.manifest.update(changed)
        attack.seal(rename="files" not in changed)

    return act


def pointing(**changed: Any) -> Change:
    """
    A pointer that says something else.
    """

    def act(attack: Attack) -> None:
        attack.pointer.update(changed)
        attack.objects[POINTER_KEY] = json.dumps(attack.pointer).encode()

    return act


def row(number: int, column: int, value: Any) -> Change:
    """
    One value in the manifest, and nothing contradicts it but the bundle itself.
    """

    def act(attack: Attack) -> None:
        attack.rows[number][column] = value(attack.rows[number]) if callable(value) else value
        attack.seal()

    return act


def named(path: str) -> Change:
    """
    The first file has another name, in its place among the others.
    """

    def act(attack: Attack) -> None:
        attack.rows[0][0] = path
        if "\udc80" not in path:
            attack.rows.sort(key=lambda row: row[1])
        attack.seal()

    return act


def twice(attack: Attack) -> None:
    attack.rows.insert(1, copy.copy(attack.rows[0]))
    attack.seal()


def bomb(claimed_bytes: int) -> Change:
    """
    A file of 64 MiB in 64 KiB, of which the manifest claims so much.
    """

    def act(attack: Attack) -> None:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        data = packer.compress(bytes(64 << 20)) + packer.flush()
        offset, last = len(attack.objects[attack.bundle_name]), attack.rows[-1]
        attack.rows.append(["zzz.py", offset, len(data), claimed_bytes, last[4], "0644"])
        attack.change_bundle(lambda bundle: bundle + data, is_told=True)

    return act


def deflated(change: Callable[[bytes], bytes]) -> Change:
    """
    The stream of the first file is another one, as long as the manifest says.
    """

    def act(attack: Attack) -> None:
        _, offset, stored, *_ = attack.rows[0]
        attack.change_bundle(
            lambda bundle: (
                bundle[:offset]
                + change(bundle[offset : offset + stored])
                + bundle[offset + stored :]
            ),
            is_told=True,
        )

    return act


def stretch(attack: Attack) -> None:
    """
    A stream that ends early, with room behind its end: data that nobody accounts for.
    """
    attack.rows[0][2] += 1
    attack.seal()


ATTACKS: dict[str, tuple[str, Change]] = {
    "no pointer's manifest": ("release_missing", drop("manifest")),
    "no bundle": ("release_missing", drop("bundle")),
    "pointer is empty": ("release_invalid", alter("pointer", lambda _: b"")),
    "pointer is half": ("release_invalid", alter("pointer", lambda body: body[: len(body) // 2])),
    "pointer is no JSON": ("release_invalid", alter("pointer", lambda _: b"<html>Sign in</html>")),
    "pointer is a list": ("release_invalid", alter("pointer", lambda _: b"[]")),
    "pointer is nested": ("release_invalid", alter("pointer", lambda _: b"[" * 60_000)),
    "pointer is too large": (
        "release_invalid",
        alter("pointer", lambda body: body + b" " * 70_000),
    ),
    "pointer is of a later format": ("release_invalid", pointing(format=2)),
    "pointer leads out": ("release_invalid", pointing(revision="../../etc/pw")),
    "pointer's revision is a number": ("release_invalid", pointing(revision=123456789012)),
    "pointer without a manifest": ("release_invalid", pointing(manifest=None)),
    "pointer's history is long": ("release_invalid", pointing(history=["0" * 12] * 21)),
    "pointer of no release": ("release_missing", pointing(revision="0" * 12)),
    "pointer of another manifest": (
        "release_invalid",
        pointing(manifest={"sha256": "0" * 64, "size_bytes": 60_000}),
    ),
    "manifest is empty": ("release_invalid", alter("manifest", lambda _: b"")),
    "manifest is half": ("release_invalid", alter("manifest", lambda body: body[: len(body) // 2])),
    "manifest is longer": ("release_invalid", alter("manifest", lambda body: body + b" ")),
    "manifest is altered": ("release_invalid", flip("manifest")),
    "manifest of another release": ("release_invalid", swap("manifest")),
    "manifest is of a later format": ("release_invalid", facts(format=2)),
    "manifest without files": ("release_invalid", facts(files=[])),
    "manifest whose files are a text": ("release_invalid", facts(files="all")),
    "manifest whose rows are short": ("release_invalid", facts(files=[["a.py"]])),
    "manifest with another revision": ("release_invalid", facts(revision="0" * 12, files=[])),
    "bundle is empty": ("bundle_corrupt", alter("bundle", lambda _: b"")),
    "bundle is half": ("bundle_corrupt", alter("bundle", lambda body: body[: len(body) // 2])),
    "bundle is altered": ("bundle_corrupt", alter("bundle", lambda body: bytes(len(body)))),
    "bundle of another release": ("bundle_corrupt", swap("bundle")),
    "file with another sha256": ("bundle_corrupt", row(0, 4, "0" * 64)),
    "file that is longer than it says": ("bundle_corrupt", row(0, 3, lambda row: row[3] - 1)),
    "file that is shorter than it says": ("bundle_corrupt", row(0, 3, lambda row: row[3] + 1)),
    "stream with something behind": ("bundle_corrupt", stretch),
    "stream that is none": ("bundle_corrupt", deflated(lambda data: b"\xff" * len(data))),
    "stream without end": ("bundle_corrupt", deflated(lambda data: data[:-2] + b"\0\0")),
    "offset beyond the bundle": ("release_invalid", row(-1, 1, 1 << 40)),
    "offset before the bundle": ("release_invalid", row(0, 1, -1)),
    "more than there is": ("release_invalid", row(0, 2, 1 << 40)),
    "larger than allowed": ("release_invalid", row(0, 3, 1 << 60)),
    "size that is no number": ("release_invalid", row(0, 3, "1")),
    "size that is true": ("release_invalid", row(0, 3, True)),
    "sha256 in capitals": ("release_invalid", row(0, 4, "A" * 64)),
    "setuid": ("release_invalid", row(0, 5, "4755")),
    "writable for all": ("release_invalid", row(0, 5, "0777")),
    "one file twice": ("release_invalid", twice),
    "bomb that says what it is": ("release_invalid", bomb(64 << 20)),
    "bomb that claims to be small": ("bundle_corrupt", bomb(70_000)),
}

NAMES = {
    "climbs": "../evil.py",
    "climbs far": "../../../evil.py",
    "climbs within": "a/../../evil.py",
    "absolute": "/tmp/evil.py",
    "a dot": "./evil.py",
    "two slashes": "a//evil.py",
    "a folder": "evil/",
    "empty": "",
    "NUL": "evil\0.py",
    "ours": ".s3-sync/published.json",
    "our folder": ".s3-sync",
    "long": "e" * 256,
    "deep": "e/" * 2_100 + "e",
    "no text": "evil\udc80.py",
    "file and folder": "pkg/b.py/evil.py",
    "folder and file": "pkg",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_with_its_reason_and_changes_nothing(
    besieged: Fortress, name: str
) -> None:
    reason, act = ATTACKS[name]
    attack = besieged.make()
    act(attack)

    end, wounds = besieged.suffer(attack.objects)

    assert [] == wounds
    assert (reason, "cycle_failed") == (end.get("reason"), end["event"]), end
    besieged.recover()


COLD = (
    "bundle is half",
    "bundle is altered",
    "file with another sha256",
    "bomb that claims to be small",
)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_leaves_an_empty_volume_empty(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    """
    A cold start takes another way through the bundle: one GET of all of it.
    """
    if name not in COLD:
        request.getfixturevalue("only_in_full")
    reason, act = ATTACKS[name]
    attack = Attack(make_release(next_files()))
    act(attack)
    with FakeS3() as s3:
        for key, body in attack.objects.items():
            s3.put(f"{PREFIX}{key}", body)
        with release_daemon(s3, tmp_path / "dags", {"S3_SYNC_ONE_SHOT": "true"}) as daemon:
            failed = daemon.wait_for_event("cycle_failed", 60)
            assert 0 == daemon.terminate().code

    assert reason == failed["reason"]
    assert {} == published(tmp_path / "dags")
    assert [] == list((tmp_path / "dags/.s3-sync/staging").iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_name_that_must_not_be_written_is_refused_with_the_whole_release(
    besieged: Fortress, name: str
) -> None:
    attack = besieged.make()
    named(NAMES[name])(attack)

    end, wounds = besieged.suffer(attack.objects)

    assert [] == wounds
    assert ("release_invalid", "cycle_failed") == (end.get("reason"), end["event"]), end
    besieged.recover()


def test_bomb_is_stopped_at_the_size_that_the_manifest_says(besieged: Fortress) -> None:
    attack = besieged.make()
    bomb(70_000)(attack)

    end, wounds = besieged.suffer(attack.objects)

    assert [] == wounds
    assert "more than 70000 bytes" in end["error"]
    besieged.recover()


@pytest.mark.parametrize("part", PARTS[:2])
def test_object_that_is_far_too_large_is_not_read(besieged: Fortress, part: str) -> None:
    before = Vitals.of(besieged.daemon.pid).peak_kib
    attack = besieged.make()
    attack.objects[name_of(attack, part)] = b" " * (48 << 20) + b"{}"

    end, wounds = besieged.suffer(attack.objects)

    assert [] == wounds
    assert "release_invalid" == end["reason"]
    assert Vitals.of(besieged.daemon.pid).peak_kib < before + (16 << 10)
    besieged.recover()


def test_what_is_refused_is_refused_again_until_it_is_mended(besieged: Fortress) -> None:
    attack = besieged.make()
    alter("pointer", lambda _: b"{}")(attack)

    for _ in range(3):
        end, wounds = besieged.suffer(attack.objects)

        assert [] == wounds
        assert "release_invalid" == end["reason"]
    besieged.recover()


def test_bundle_that_calls_its_entries_links_and_devices_makes_files_only(
    besieged: Fortress,
) -> None:
    """
    What the zip itself says of names and kinds is nothing to the reader: only the manifest counts.
    """
    attack = besieged.make()
    bundle = bytearray(attack.objects[attack.bundle_name])
    with zipfile.ZipFile(io.BytesIO(bytes(bundle))) as archive:
        entries = archive.infolist()
    for number, entry in enumerate(entries):
        kind = (0o120777, 0o020666, 0o010666, 0o040777)[number % 4]
        at = bundle.rindex(entry.filename.encode())
        bundle[at - 8 : at - 4] = (kind << 16).to_bytes(4, "little")
        evil = (b"../" * len(entry.filename))[: len(entry.filename)]
        bundle[at : at + len(evil)] = evil
    attack.change_bundle(lambda _: bytes(bundle), is_told=True)

    end, wounds = besieged.suffer(attack.objects)

    assert [] == wounds
    assert "cycle_finished" == end["event"], end


# --- any attack

POSITIONS = st.floats(0, 1, exclude_max=True)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from(
        ["../evil.py", "/evil.py", "0644", "0" * 12, "0" * 64, [["x"]], 0, -1, 1 << 40]
    ),
)


@st.composite
def byte_changes(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """
    Another content for an object.
    """
    kind = draw(st.sampled_from(["flip", "cut", "grow", "zero", "double", "other", "insert"]))
    where, more = draw(POSITIONS), draw(st.binary(min_size=1, max_size=40))

    def change(body: bytes) -> bytes:
        at = int(where * len(body))
        return {
            "flip": body[:at] + bytes([body[at] ^ (more[0] or 1)]) + body[at + 1 :],
            "cut": body[:at],
            "grow": body + more,
            "zero": body[:at] + bytes(len(body) - at),
            "double": body + body,
            "other": more,
            "insert": body[:at] + more + body[at:],
        }[kind]

    return change


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """
    The paths to all values in a JSON document.
    """
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def put(document: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


ANY_TIME = settings(
    max_examples=settings().max_examples // 2,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@ANY_TIME
@given(part=st.sampled_from(PARTS), change=byte_changes(), is_told=st.booleans())
def test_no_altered_byte_gets_through(
    besieged: Fortress, part: str, change: Callable[[bytes], bytes], is_told: bool
) -> None:
    attack = besieged.make()
    if part == "bundle":
        attack.change_bundle(change, is_told=is_told)
    else:
        alter(part, change)(attack)

    _, wounds = besieged.suffer(attack.objects)

    assert [] == wounds
    besieged.recover()


@ANY_TIME
@given(
    document=st.sampled_from(["pointer", "manifest"]),
    where=POSITIONS,
    value=ODD,
    seal=st.booleans(),
)
def test_no_odd_value_gets_through(
    besieged: Fortress, document: str, where: float, value: Any, seal: bool
) -> None:
    attack = besieged.make()
    told = attack.pointer if document == "pointer" else attack.manifest
    found = list(places(told))
    put(told, found[int(where * len(found))], value)
    if document == "pointer":
        attack.objects[POINTER_KEY] = json.dumps(told).encode()
    else:
        is_list = isinstance(attack.manifest.get("files"), list)
        is_rows = is_list and all(isinstance(r, list) and len(r) > 5 for r in attack.rows)
        attack.seal(rename=seal and is_rows)

    _, wounds = besieged.suffer(attack.objects)

    assert [] == wounds
    besieged.recover()


@ANY_TIME
@given(
    paths=st.lists(
        st.text(alphabet="ab./\0é\udc80~*", max_size=8) | st.sampled_from(sorted(NAMES.values())),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_no_name_leads_out(besieged: Fortress, paths: list[str]) -> None:
    attack = besieged.make()
    for given_row, path in zip(attack.rows, paths, strict=False):
        given_row[0] = path
    attack.rows[len(paths) :] = []
    names = sorted(row[0] for row in attack.rows)
    for given_row, path in zip(attack.rows, names, strict=True):
        given_row[0] = path
    attack.seal()

    _, wounds = besieged.suffer(attack.objects)

    assert [] == wounds
    besieged.recover()


def test_the_attacks_are_honest_where_nothing_is_altered(besieged: Fortress) -> None:
    """
    The one that shows that all others can fail.
    """
    attack = besieged.make()
    attack.seal()
    assert attack.release.revision == content_name(attack.rows)
    assert attack.objects[manifest_key(content_name(attack.rows))] != attack.release.manifest_bytes

    end, wounds = besieged.suffer(attack.objects)

    assert [] == wounds
    assert "cycle_finished" == end["event"]
