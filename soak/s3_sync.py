"""
s3-sync: both sources in both layouts, each with a spared process and one that is killed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from s3_sync.listing import CONNECTIONS
from s3_sync.release.format import POINTER_KEY, bundle_key, manifest_key
from soak.http_faults import http_faults
from soak.post import Post
from soak.readers import Reader, holding
from soak.station import Station
from soak.volume import volume
from tests.scenarios.s3_sync.machine.weather import leftovers
from tests.support.aws.fake_s3 import FakeS3, access_denied, is_get
from tests.support.aws.s3_refusals import Identity
from tests.support.daemon import Daemon
from tests.support.http.faults import replace_body
from tests.support.http.loopback import Match
from tests.support.revisions import make_revision
from tests.support.s3_sync.releases import make_release
from tests.support.s3_sync.shelf import Shelf
from tests.support.s3_sync.snapshots import SwappingS3, consumed, snapshot_leftovers

RETAIN_SECONDS = 15
SETTINGS = {
    "AWS_ACCESS_KEY_ID": None,
    "AWS_SECRET_ACCESS_KEY": None,
    "S3_SYNC_LOG_LEVEL": "info",
    "S3_SYNC_RETAIN_COUNT": "1",
    "S3_SYNC_RETAIN_FOR": f"{RETAIN_SECONDS}s",
    "S3_SYNC_TIMEOUT": "5s",
}


def target_of(post: Post) -> Path:
    """
    Return the folder that a post keeps equal to its source.
    """
    assert post.folder is not None
    return post.folder


class S3Sync(Station):
    """
    A bucket that is listed and a bucket with releases, always with the same revision.
    """

    name = "s3-sync"

    def set_up(self) -> None:
        """
        Start two servers and eight daemons.
        """
        home = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-s3-")))
        self.volume = self.stack.enter_context(volume(home / "volume", "64m"))
        self.listed = self.stack.enter_context(SwappingS3())
        self.released = self.stack.enter_context(FakeS3())
        self.servers: tuple[FakeS3, ...] = (self.listed, self.released)
        self.shelf = Shelf(self.released)
        self.credentials = home / "credentials"
        self.number = self.keys = 0
        self.reader_of: dict[str, Reader] = {}
        self.rotate_keys()
        self.next_revision()
        for source, server in zip(("listing", "release"), self.servers, strict=True):
            for layout in ("in-place", "snapshot"):
                for is_spared in (True, False):
                    self._add_post(source, server, layout, is_spared=is_spared)
        self.changes = {
            "next revision": self.next_revision,
            "three revisions": self.three_revisions,
            "revision comes back": self.revision_comes_back,
            "keys rotated": self.rotate_keys,
        }
        self.faults = {
            **http_faults(*self.servers),
            "access denied": self.access_denied,
            "objects altered": self.objects_altered,
            "bucket emptied": self.bucket_emptied,
            "bad pointer": partial(self.bad_release, POINTER_KEY),
            "bad manifest": partial(self.bad_release, "manifest"),
            "bad bundle": partial(self.bad_release, "bundle"),
            "files damaged by hand": self.files_damaged,
            **({"volume full": self.volume.full} if self.volume.is_small else {}),
        }

    def _add_post(self, source: str, server: FakeS3, layout: str, *, is_spared: bool) -> None:
        name = f"{source}, {layout}"
        target = self.volume.path / f"{source}-{layout}-{'spared' if is_spared else 'killed'}"
        environment = {
            **server.environment(),
            **SETTINGS,
            "AWS_SHARED_CREDENTIALS_FILE": str(self.credentials),
            "S3_SYNC_SOURCE": source,
            "S3_SYNC_LAYOUT": layout,
        }
        daemon = Daemon(None, server.bucket, target, "dags", "1", environment)
        post = Post(name, daemon, is_spared=is_spared, folder=target, connections=CONNECTIONS)
        self.posts.append(post)
        lock = self.volume.path / f"{target.name}.lock"
        snapshot = ("tree", str(target / "current"), str(RETAIN_SECONDS))
        what = snapshot if layout == "snapshot" else ("files", str(target))
        reader = Reader(lock, *what, environment={"PATH": "/usr/bin:/bin"})
        self.readers.append(reader)
        self.reader_of[target.name] = reader

    @property
    def wanted(self) -> dict[str, bytes]:
        """
        The content of both buckets.
        """
        return make_revision(self.shown)

    def behind(self) -> list[str]:
        """
        Compare every target with the bucket.
        """
        for server in self.servers:
            server.forget()
        found = []
        for post in self.posts:
            try:
                shown = consumed(target_of(post))
            except (OSError, AssertionError) as unreadable:
                found.append(f"{post.name}: {unreadable!r}")
                continue
            if shown != self.wanted:
                wrong = sorted(dict(shown.items() ^ self.wanted.items()))
                found.append(f"{post.name} is not revision {self.shown}: {wrong[:3]}")
            elif error := post.last_error():
                found.append(error)
        return found

    def leftovers(self) -> list[str]:
        """
        Return temporary files of cycles; a cycle may be running right now.
        """
        found = []
        for post in self.posts:
            target = target_of(post)
            left = leftovers(target)
            if "snapshot" in post.name:
                left += snapshot_leftovers(target)
            found += [f"{post.name}: {path}" for path in left]
        return found

    def _show(self, number: int) -> None:
        self.shown = number
        self.listed.swap(make_revision(number))
        self.shelf.publish(make_revision(number))

    def next_revision(self) -> None:
        """
        Change all files; add and remove some.
        """
        self.number += 1
        self._show(self.number)

    def three_revisions(self) -> None:
        """
        Publish three revisions in a row, faster than the poll interval.
        """
        for _ in range(3):
            self.next_revision()
            self.hold(0, 0.3)

    def revision_comes_back(self) -> None:
        """
        Make an earlier revision current again.
        """
        self._show(self.chance.randrange(max(1, self.number - 5), self.number + 1))

    def rotate_keys(self) -> None:
        """
        Write new keys to the profile; the old ones stop working immediately.
        """
        self.keys += 1
        name, secret = f"AKIASOAK{self.keys:012d}", f"secret-{self.keys}"
        following = self.credentials.with_suffix(".new")
        following.write_text(
            f"[default]\naws_access_key_id = {name}\naws_secret_access_key = {secret}\n"
        )
        following.rename(self.credentials)
        for server in self.servers:
            server.identities = {name: Identity(secret)}

    @contextmanager
    def access_denied(self) -> Iterator[None]:
        """
        Refuse all GET requests, as if the role had lost its policy.
        """
        refusal = access_denied("s3:ListBucket", "arn:aws:s3:::dags-bucket", "someone")
        with self._injected(refusal, lambda request: request.method == "GET"):
            yield

    @contextmanager
    def objects_altered(self) -> Iterator[None]:
        """
        Corrupt every downloaded object in a different way, as a faulty network might.

        With a listing, files that cannot be downloaded keep their old content, next to new files.
        """
        with ExitStack() as stack:
            for name, reader in self.reader_of.items():
                if name.startswith("listing-snapshot"):
                    stack.enter_context(holding(reader))
            stack.enter_context(self.until_in_step())
            with self._injected(replace_body(lambda body: os.urandom(8) + body[8:]), is_get()):
                yield

    @contextmanager
    def _injected(self, spoil: object, match: Match) -> Iterator[None]:
        for server in self.servers:
            server.inject(spoil, match)  # type: ignore[arg-type]
        try:
            yield
        finally:
            for server in self.servers:
                server.heal()

    @contextmanager
    def bucket_emptied(self) -> Iterator[None]:
        """
        Delete everything under the prefix.
        """
        files = self.listed.files()
        self.listed.swap({})
        try:
            yield
        finally:
            self.listed.swap(files)

    @contextmanager
    def bad_release(self, part: str) -> Iterator[None]:
        """
        Publish a release with one garbage object, until a good release replaces it.
        """
        release = make_release({**make_revision(self.number + 1), "bad": os.urandom(8)})
        bad = {
            "manifest": manifest_key(release.revision),
            "bundle": bundle_key(release.manifest.bundle_sha256),
        }.get(part, part)
        for name, body in release.objects().items():
            self.shelf.put(name, os.urandom(len(body)) if name == bad else body)
        try:
            yield
        finally:
            self.next_revision()

    @contextmanager
    def files_damaged(self) -> Iterator[None]:
        """
        Edit, remove and replace files of an in-place target.
        """
        post = self.chance.choice([post for post in self.posts if "in-place" in post.name])
        target = target_of(post)
        with holding(self.reader_of[target.name]), post.damaged(), self.until_in_step():
            for path in self.chance.sample(sorted(self.wanted), 4):
                file = target / path
                kind = self.chance.choice(("edited", "removed", "emptied", "a link"))
                if not file.is_file():  # another revision is published at this moment
                    continue
                if kind == "edited":
                    file.write_bytes(b"edited by hand\n")
                elif kind == "emptied":
                    file.write_bytes(b"")
                else:
                    file.unlink()
                    if kind == "a link":
                        file.symlink_to("/etc/hostname")
            yield
            post.daemon.sighup()
