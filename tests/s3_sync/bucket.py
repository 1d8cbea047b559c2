"""A bucket to which tests publish in their own process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from pathlib import Path

from s3_sync.publisher.airflow.check import Passed
from s3_sync.publisher.local.ignore import Ignore
from s3_sync.publisher.progress import Progress
from s3_sync.publisher.publish import Outcome, Publisher
from s3_sync.publisher.store import Store
from s3_sync.release.facts import Checked, Origin
from s3_sync.release.names import POINTER_KEY
from s3_sync.release.pointer import Pointer, parse_pointer
from s3_sync.settings import Settings
from tests.support.aws.writable_s3 import WritableS3, is_write
from tests.support.s3_sync.publishing import PREFIX, check_every_release, read_release, write_files
from tests.support.s3_sync.releases import AT, Release, make_release

ORIGIN = Origin(by="ada", commit="0" * 40, message="Sales by country")
CHECKED = Checked("3.3.2", AT, 2, ("orders", "sales"))

A = {"a.py": b"print('a')\n", "sql/a.sql": b"select 1;\n" * 40}
B = {"a.py": b"print('b')\n", "c.py": b""}
C = {"c.py": b"print('c')\n"}


class Bucket:
    """A bucket, and the publisher that writes to it."""

    def __init__(self, server: WritableS3, folder: Path, settings: Settings) -> None:
        self.server = server
        self.folder = folder
        self.settings = settings
        self.store = Store(settings)
        self.judged: list[str] = []
        self.judge: Callable[[], object] = lambda: None
        self.passed: Passed | None = None

    def publish(
        self,
        files: Mapping[str, bytes],
        *,
        executable: Collection[str] = (),
        is_dry: bool = False,
        repairs: bool = False,
    ) -> Outcome:
        """Publish a folder with these files."""

        def judge(revision: str, write: Callable[[str], list[str]]) -> Passed | None:
            self.judged.append(revision)
            self.judge()
            return self.passed

        write_files(self.folder, files)
        for path in executable:
            (self.folder / path).chmod(0o755)
        publisher = Publisher(self.store, ORIGIN, judge, Progress())
        ignore = Ignore(str(self.folder), ())
        return publisher.publish(str(self.folder), ignore, is_dry=is_dry, repairs=repairs)

    def publish_all(self, *folders: Mapping[str, bytes]) -> None:
        """Publish several folders one after another."""
        for files in folders:
            self.publish(files)

    def bodies(self) -> dict[str, bytes]:
        return {key: stored.body for key, stored in self.server.objects.items()}

    def current(self) -> dict[str, bytes]:
        """Verify all releases, and return the files of the current one."""
        check_every_release(self.bodies())
        return read_release(self.bodies())

    def put(self, release: Release) -> Release:
        """Make a release current, as another publisher would."""
        self.server.put_all(release.objects(), PREFIX, at=release.pointer.turn.since)
        return release

    def put_back(self, pointer: bytes, minutes: float = 60) -> None:
        """Restore an old pointer some minutes after it was published."""
        later = parse_pointer(pointer).turn.since + timedelta(minutes=minutes)
        self.server.put(PREFIX + POINTER_KEY, pointer, at=later)

    def pointer(self) -> Pointer:
        return parse_pointer(self.bodies()[PREFIX + POINTER_KEY])

    def history(self) -> tuple[str, ...]:
        return tuple(turn.revision for turn in self.pointer().history)

    def spelled(self, **releases: Mapping[str, bytes]) -> list[str]:
        """Return the history as the given names of the releases."""
        names = {make_release(files).revision: name for name, files in releases.items()}
        return [names[revision] for revision in self.history()]

    def writes(self) -> list[str]:
        return [request.path.rpartition("/")[2] for request in self.server.seen(is_write())]
