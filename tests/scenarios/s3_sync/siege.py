"""
A daemon under siege: releases that no honest publisher makes, and what it makes of them.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from tests.scenarios.s3_sync.snapshots import shown
from tests.support.daemon import Daemon, Event
from tests.support.fake_s3 import FakeS3
from tests.support.releases import Release, make_release
from tests.support.scripted import new_content, published
from tests.support.shelf import PREFIX, Shelf, release_daemon

REASONS = {"release_invalid", "release_missing", "bundle_corrupt"}
LAYOUTS = ("in-place", "snapshot")

Facts = dict[str, Any]


def next_files() -> dict[str, bytes]:
    """
    Files that no release had before, but for two: deflated, stored, empty, in folders, one of a new
    name.
    """
    return {
        "a.py": new_content() * 40,
        "empty.py": b"",
        "pkg/b.py": new_content() * 7,
        "pkg/deep/down/c.sql": new_content(),
        "pkg/same.py": b"as ever\n" * 50,
        "raw.bin": hashlib.sha256(new_content()).digest() * 3,
        "tail.py": new_content() * 3,
        f"y{hashlib.md5(new_content()).hexdigest()}.py": b"",
    }


@dataclass
class Attack:
    """
    A release as it lies in the bucket: an honest one at first, to be altered.

    Attributes:
        manifest: What the manifest says; `seal` makes its bytes.
        objects: By key relative to the prefix.
    """

    release: Release
    objects: dict[str, bytes] = field(default_factory=dict)
    manifest: Facts = field(default_factory=dict)
    pointer: Facts = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.objects = self.release.objects()
        self.manifest = json.loads(self.release.manifest_bytes)
        self.pointer = json.loads(self.release.pointer_bytes)

    @property
    def rows(self) -> list[list[Any]]:
        """
        Of the manifest: path, offset, stored bytes, size, sha256, mode.
        """
        rows: list[list[Any]] = self.manifest["files"]
        return rows

    @property
    def bundle_name(self) -> str:
        return bundle_key(self.release.manifest.bundle_sha256)

    @property
    def manifest_name(self) -> str:
        return manifest_key(self.release.revision)

    def change_bundle(self, change: Callable[[bytes], bytes], *, is_told: bool = False) -> None:
        """
        Alter the bundle under its name.

        Args:
            is_told: The manifest names the altered one, as somebody would who may write both.
        """
        altered = change(self.objects[self.bundle_name])
        if is_told:
            digest = hashlib.sha256(altered).hexdigest()
            self.manifest["bundle"] = {"sha256": digest, "size_bytes": len(altered)}
            self.objects[bundle_key(digest)] = altered
            self.seal()
        else:
            self.objects[self.bundle_name] = altered

    def seal(self, *, rename: bool = True) -> None:
        """
        Write the altered manifest, and a pointer that names it with the right digest.

        Args:
            rename: Under the revision that the altered rows have, so that nothing contradicts.
        """
        if rename:
            self.manifest["revision"] = content_name(self.rows)
        body = json.dumps(self.manifest).encode()
        revision = self.manifest["revision"]
        self.objects[manifest_key(str(revision))] = body
        self.pointer["revision"] = revision
        self.pointer["manifest"] = {
            "sha256": hashlib.sha256(body).hexdigest(),
            "size_bytes": len(body),
        }
        self.objects[POINTER_KEY] = json.dumps(self.pointer).encode()


def content_name(rows: list[list[Any]]) -> str:
    """
    The revision of these rows, computed as the format says, whatever they hold.
    """
    lines = []
    for row in rows:
        path, sha256, mode = str(row[0]), str(row[4]), row[5]
        lines.append(f"{sha256} {'x' if mode == '0755' else '-'} {path}\0")
    return hashlib.sha256("".join(lines).encode(errors="surrogatepass")).hexdigest()[:12]


class Fortress:
    """
    A daemon that has a good release, and what lies around its target.
    """

    def __init__(self, s3: FakeS3, daemon: Daemon, layout: str) -> None:
        self.s3 = s3
        self.daemon = daemon
        self.shelf = Shelf.at(s3)
        self.layout = layout
        self.contents: dict[str, bytes] = {}
        """All contents that any release had, by SHA-256."""

    @property
    def visible(self) -> dict[str, bytes]:
        """
        What consumers find.
        """
        target = self.daemon.target
        return shown(target) if self.layout == "snapshot" else published(target)

    def make(self) -> Attack:
        """
        Make a release to be altered; it is not in the bucket yet.
        """
        files = next_files()
        for body in files.values():
            self.contents[hashlib.sha256(body).hexdigest()] = body
        return Attack(make_release(files))

    def suffer(self, objects: Mapping[str, bytes]) -> tuple[Event, list[str]]:
        """
        Let the bucket hold these objects, and run a cycle.

        Returns:
            The line of its end, and what is wrong with what it did.
        """
        before, around = self.visible, self.surroundings()
        for name in sorted(objects, key=POINTER_KEY.__eq__):  # last: a cycle may look at any time
            self.shelf.put(name, objects[name])
        end = self.cycle()
        wounds = []
        if self.surroundings() != around:
            wounds.append("something outside the target changed")
        if end["event"] == "cycle_failed":
            if end["reason"] not in REASONS:
                wounds.append(f"the reason is {end['reason']}")
            if not end["advice"] or not end["error"]:
                wounds.append("the error does not teach")
            if self.visible != before:
                wounds.append("what was published changed although the cycle failed")
        elif (wanted := self._told(objects)) != self.visible:
            wounds.append(f"published is not what the manifest says: {sorted(wanted)}")
        if self.daemon.get("/readyz").status != 200:
            wounds.append("not ready any more")
        if self.daemon.stray_lines:
            wounds.append(f"stray lines: {self.daemon.stray_lines}")
        return end, wounds

    def _told(self, objects: Mapping[str, bytes]) -> dict[str, bytes]:
        """
        What a reader that accepts these objects must publish.
        """
        pointer = json.loads(objects[POINTER_KEY])
        manifest = json.loads(self.s3.objects[PREFIX + manifest_key(pointer["revision"])].body)
        return {row[0]: self.contents[row[4]] for row in manifest["files"]}

    def recover(self) -> None:
        """
        Publish an honest release, which the same process must take at once.
        """
        attack = self.make()
        self.shelf.store(attack.release)
        self.shelf.point_to(attack.release)
        end = self.cycle()
        wanted = {row[0]: self.contents[row[4]] for row in attack.rows}
        assert "cycle_finished" == end["event"], self.daemon.log()
        assert wanted == self.visible

    def cycle(self) -> Event:
        """
        Run a cycle that sees the bucket as it is now, and return the line of its end.

        One that tries again after a failure may be under way at any time; the second that ends has
        begun after the call in any case.
        """
        self.daemon.sync()
        return self.daemon.sync()

    def surroundings(self) -> dict[str, tuple[int, int, bytes]]:
        """
        All that lies around the target, to three folders above it: mode, time, content.
        """
        root, target = self.daemon.target.parents[2], str(self.daemon.target)
        found = {}
        for here, folders, names in os.walk(root):
            folders[:] = [one for one in folders if os.path.join(here, one) != target]
            for name in [*folders, *names]:
                path = os.path.join(here, name)
                stat = os.lstat(path)
                content = Path(path).read_bytes() if name in names else b""
                found[path] = (stat.st_mode, stat.st_mtime_ns, content)
        return found


@contextmanager
def fortress(
    folder: Path, layout: str, settings: Mapping[str, str] | None = None
) -> Iterator[Fortress]:
    """
    Run a daemon below `folder`, in a tree with files of others around its target.
    """
    target = folder / "above" / "beside" / "dags"
    target.parent.mkdir(parents=True)
    for place in (folder, target.parents[1], target.parents[0]):
        (place / "evil.py").write_text("not yours")
        (place / "dags-old").mkdir()
    with ExitStack() as stack:
        s3 = stack.enter_context(FakeS3())
        own = {"S3_SYNC_LAYOUT": layout, "S3_SYNC_RETAIN_FOR": "1s"}
        daemon = release_daemon(s3, target, {**own, **(settings or {})})
        besieged = Fortress(s3, daemon, layout)
        first = besieged.make().release
        besieged.shelf.store(first)
        besieged.shelf.point_to(first)
        stack.enter_context(daemon)
        daemon.wait_until_synced()
        yield besieged
