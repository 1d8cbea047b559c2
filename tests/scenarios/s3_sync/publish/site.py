"""A bucket on the scripted server, and a publisher's command line."""

from pathlib import Path
from typing import Any

from s3_sync.release.format import POINTER_KEY, read_pointer
from tests.support.aws.writable_s3 import WritableS3
from tests.support.s3_sync.forked import Forked, ForkServer
from tests.support.s3_sync.publishing import (
    PREFIX,
    Publishing,
    Ran,
    read_release,
    write_files,
)

A, B, C = ({"a.py": name} for name in (b"a", b"b", b"c"))
POINTER = PREFIX + POINTER_KEY


def race(
    servers: tuple[ForkServer, ForkServer],
    publisher: Publishing,
    folder: Path,
    mark: str,
    *more: str,
) -> tuple[Forked, Forked]:
    """
    Let two publish at once; return the one that succeeded, and the one that failed.
    """
    running = []
    for server, name in zip(servers, ("one", "two"), strict=True):
        dags = write_files(folder / name, {"a.py": f"{name} {mark}".encode()})
        words = ["publish", str(dags), *more, "--output", "json"]
        running.append(
            server.start(words, publisher.environment, folder / f"said {name}")
        )
    codes = [command.wait() for command in running]
    assert [0, 3] == sorted(codes), [command.err for command in running]
    return running[codes.index(0)], running[codes.index(3)]


class Site:
    """A bucket, and a publisher."""

    def __init__(
        self, s3: WritableS3, folder: Path, forks: ForkServer, more_forks: ForkServer
    ) -> None:
        self.s3 = s3
        self.folder = folder
        self.dags = folder / "dags"
        self.publisher = Publishing(s3, s3.bucket, folder / "home", forks=forks)
        self.other = Publishing(s3, s3.bucket, folder / "other", forks=more_forks)

    def run(self, *words: str | Path) -> Ran:
        """Run a command; its answer is JSON."""
        return self.publisher.run(*words, "--output", "json")

    def publish(self, files: dict[str, bytes], *more: str) -> Any:
        """Publish a folder with these files; return the facts."""
        return self.publisher.succeed("publish", write_files(self.dags, files), *more)

    def fails(self, reason: str, *words: str | Path, code: int = 3) -> Ran:
        """Run a command that must fail for this reason."""
        ran = self.run(*words)
        assert (code, reason) == (ran.code, ran.facts()["reason"]), ran
        return ran

    def refuses(self, reason: str, files: dict[str, bytes], *more: str) -> Ran:
        """Fail to publish these files."""
        return self.fails(reason, "publish", write_files(self.dags, files), *more)

    def others_publish(self, files: dict[str, bytes]) -> str:
        """Let another publisher publish meanwhile; return the revision."""
        theirs = write_files(self.folder / "theirs", files)
        return str(self.other.succeed("publish", theirs)["revision"])

    def bodies(self) -> dict[str, bytes]:
        return {key: stored.body for key, stored in self.s3.objects.items()}

    def current(self) -> dict[str, bytes]:
        return read_release(self.bodies())

    def turns(self) -> list[str]:
        """Return the revisions of the pointer and its history, newest first."""
        pointer, _ = read_pointer(
            self.s3.objects[POINTER].body, None, self.s3.bucket, PREFIX
        )
        return [turn.revision for turn in pointer.turns()]
