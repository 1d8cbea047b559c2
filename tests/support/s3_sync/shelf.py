"""
A shelf of releases, filled object by object, even to states that no publisher creates.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from s3_sync.release.format import POINTER_KEY, bundle_key, manifest_key, write_pointer
from s3_sync.release.signature import Signer
from tests import Given
from tests.support.aws.fake_s3 import FakeS3
from tests.support.daemon import Daemon
from tests.support.http.loopback import Request
from tests.support.s3_sync.releases import Release, make_release
from tests.support.s3_sync.scripted import daemon_for

RELEASE = {"S3_SYNC_SOURCE": "release", "S3_SYNC_LAYOUT": "snapshot"}
PREFIX = "dags/"


class Shelf:
    """
    The objects under the prefix of one daemon.

    Attributes:
        current: The release that the pointer names; None before the first publish.
        releases: All releases that were published here, by revision.
        signer: Signs the pointers, if set.
    """

    def __init__(self, s3: FakeS3) -> None:
        self._s3 = s3
        self.signer: Signer | None = None
        self.current: Release | None = None
        self.releases: dict[str, Release] = {}

    def put(self, name: str, body: bytes) -> None:
        """
        Store an object unchanged; its name is relative to the prefix.
        """
        self._s3.put(f"{PREFIX}{name}", body)

    def remove(self, name: str) -> None:
        """
        Remove an object; `name` as in :meth:`put`.
        """
        self._s3.delete(f"{PREFIX}{name}")

    def store(self, release: Release) -> None:
        """
        Store bundle and manifest without making the release current.
        """
        for name, body in release.objects().items():
            if name != POINTER_KEY:
                self.put(name, body)
        self.releases[release.revision] = release

    def publish(self, files: Mapping[str, bytes], **more: Any) -> Release:
        """
        Create a release of these files, and make it current.
        """
        release = make_release(files, **more)
        self.store(release)
        self.point_to(release)
        return release

    def point_to(self, release: Release) -> None:
        """
        Make a stored release current: the last step of a publish, or a whole rollback.
        """
        pointer = release.pointer
        if self.current:
            old = self.current.pointer
            pointer = pointer._replace(
                turn=pointer.turn._replace(sequence=old.turn.sequence + 1),
                history=old.turns(),
            )
        data = write_pointer(pointer)
        if self.signer:
            data = self.signer.sign(data, self._s3.bucket, PREFIX)
        self.current = replace(release, pointer=pointer, pointer_bytes=data)
        self.put(POINTER_KEY, self.current.pointer_bytes)


def release_daemon(
    s3: FakeS3,
    target: Path,
    settings: Given | None = None,
    *,
    interval: str = "1h",
) -> Daemon:
    """
    Describe a daemon that reads releases from a scripted server, without starting it.
    """
    return daemon_for(
        s3, target, interval=interval, settings={**RELEASE, **(settings or {})}
    )


def is_pointer(request: Request) -> bool:
    """
    Match polls of the pointer.
    """
    return request.path.endswith(f"/{PREFIX}{POINTER_KEY}")


def is_manifest(request: Request) -> bool:
    """
    Match requests for any manifest.
    """
    return f"/{PREFIX}{manifest_key('')}".removesuffix(".json.gz") in request.path


def is_bundle(request: Request) -> bool:
    """
    Match requests for any bundle, complete or ranged.
    """
    return f"/{PREFIX}{bundle_key('')}".removesuffix(".zip") in request.path
