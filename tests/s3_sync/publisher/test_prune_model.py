"""
A prune keeps every release that was current recently, is pinned or listed, or is the target of a
rollback, complete, whatever other commands do between its requests.
"""

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from s3_sync.publisher.catalog import resolve
from s3_sync.publisher.prune import prune, read_names
from s3_sync.publisher.rollback import roll_back
from s3_sync.publisher.store import Store
from s3_sync.release.facts import Origin
from s3_sync.release.names import POINTER_KEY, pin_key
from s3_sync.release.pointer import parse_pointer
from s3_sync.settings import load_settings
from sidecar_runtime.errors import SidecarError
from tests.conftest import Counts
from tests.s3_sync.bucket import Bucket
from tests.s3_sync.release.independent import Place, Reader
from tests.support.aws.writable_s3 import WritableS3
from tests.support.http.faults import first
from tests.support.http.loopback import Answer, Request
from tests.support.s3_sync.publishing import PREFIX
from tests.support.s3_sync.releases import make_release

FOLDERS = [{f"{name}.py": name.encode() * 50, "all.py": b"all\n"} for name in "abcdefg"]
CONTENTS = {make_release(files).revision: files for files in FOLDERS}
ROUNDS = 8
HOUR = 3_600


class DatedS3(WritableS3):
    """
    A server with a manual clock.

    Attributes:
        turns: The revisions that became current, each with its time, oldest first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 11, 20, tzinfo=UTC)
        self.turns: list[tuple[datetime, str]] = []
        self.on_write = self._look

    def good_answer(self, request: Request) -> Answer:
        answer = super().good_answer(request)
        date = {"Date": format_datetime(self.now, usegmt=True)}
        return replace(answer, headers={**answer.headers, **date})

    def put(self, key: str, body: bytes, **more: Any) -> None:
        super().put(key, body, **more)
        self.objects[key] = replace(self.objects[key], last_modified=self.now)

    def _look(self) -> None:
        if stored := self.objects.get(PREFIX + POINTER_KEY):
            revision = parse_pointer(stored.body).revision
            if [revision] != [last for _, last in self.turns[-1:]]:
                self.turns.append((self.now, revision))

    def current_since(self, then: datetime) -> set[str]:
        """Return the revisions that were current at any time after `then`."""
        ends = [since for since, _ in self.turns[1:]] + [datetime.max.replace(tzinfo=UTC)]
        turns = zip(self.turns, ends, strict=True)
        return {revision for (_, revision), end in turns if end > then}


class World:
    """A bucket, and random publishes, rollbacks and pins."""

    def __init__(self, bucket: Bucket, server: DatedS3, seed: int) -> None:
        self.bucket = bucket
        self.server = server
        self.dice = random.Random(seed)
        self.pinned: set[str] = set()
        self.backs = 0

    def act(self, *, is_meanwhile: bool = False) -> None:
        """Run one random command, from its beginning to its end."""
        deeds = [self.publish, self.back, self.pin, self.wait, self.visit]
        with suppress(SidecarError):
            self.dice.choice([*deeds, *[self.visit] * 4 * is_meanwhile])()

    def publish(self) -> None:
        self.bucket.publish(self.dice.choice(list(CONTENTS.values())))

    def back(self) -> None:
        roll_back(self.bucket.store, None, Origin(), is_dry=False)
        self.backs += 1

    def visit(self) -> None:
        """Make a random release current, and replace it with two publishes."""
        revision = self.dice.choice(self.there())
        roll_back(self.bucket.store, revision, Origin(), is_dry=False)
        self.publish()
        self.publish()

    def pin(self) -> None:
        revision = self.dice.choice(sorted(CONTENTS))
        if revision in self.pinned:
            self.pinned.remove(revision)
            self.server.delete(PREFIX + pin_key(revision))
        else:
            self.pinned.add(revision)
            self.server.put(PREFIX + pin_key(revision), b"")

    def wait(self) -> None:
        self.server.now += timedelta(seconds=self.dice.randrange(1, 80_000))

    def previous(self) -> set[str]:
        """Return the revision that a rollback would make current, if any."""
        stored = self.server.objects.get(PREFIX + POINTER_KEY)
        turn = parse_pointer(stored.body).previous if stored else None
        return {turn.revision} if turn else set()

    def there(self) -> list[str]:
        """Return the revisions of the existing releases."""
        keys = [key.rpartition("/")[2] for key in self.bucket.bodies() if key.endswith(".manifest")]
        return sorted(key.removesuffix(".manifest") for key in keys)

    def interrupt(self, *numbers: int) -> None:
        """
        Run random commands before the requests with these numbers.

        Not between the last check of a bundle and its deletion: that gap is known, and the reason
        why a prune belongs in the same queue as the publishes.
        """
        left, seen, is_acting = sorted(numbers), 0, False

        def is_due(request: Request) -> bool:
            nonlocal seen, is_acting
            if is_acting:
                return False
            seen += 1
            is_window = request.method == "DELETE" and request.path.endswith(".zip")
            if not left or seen < left[0] or is_window:
                return False
            left.pop(0)
            is_acting = True
            return True

        def act() -> None:
            nonlocal is_acting
            self.act(is_meanwhile=True)
            is_acting = False

        self.server.inject(first(act), is_due)

    def objects(self) -> dict[str, bytes]:
        return {key.removeprefix(PREFIX): body for key, body in self.bucket.bodies().items()}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[DatedS3]:
    """An empty bucket; the environment points to it."""
    with DatedS3() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.mark.timeout(3_600)
def test_never_prunes_a_release_in_use(server: DatedS3, tmp_path: Path, counts: Counts) -> None:
    given = {"AWS_BUCKET": server.bucket, "KEY_PATH": PREFIX, "DEST_PATH": "/nowhere"}
    bucket = Bucket(server, tmp_path / "dags", load_settings(given)[0])
    removed = backs = 0
    for seed in range(counts.histories):
        server.objects.clear()
        server.turns.clear()
        world = World(bucket, server, seed)
        world.publish()
        for _ in range(ROUNDS):
            removed += prune_once(world, tmp_path)
        backs += world.backs
    assert removed > counts.histories
    assert backs > counts.histories


def prune_once(world: World, folder: Path) -> int:
    """Run commands, prune during more commands, and check that all releases in use exist."""
    dice = world.dice
    for _ in range(dice.randrange(1, 4)):
        world.act()
    world.wait()
    before, keep_for = world.server.now, dice.choice((0, HOUR, 8 * HOUR))
    there, pinned, previous = set(world.there()), set(world.pinned), world.previous()
    turns = len(world.server.turns)
    listed = set(dice.sample(sorted(there), min(2, len(there))))
    names = folder / "keep"
    names.write_text("".join(f"{revision[:12]}\n" for revision in listed))
    keep = [resolve(world.bucket.store, name) for name in read_names(str(names))]
    store = Store(world.bucket.settings)  # a new store first asks S3 for the time
    world.interrupt(dice.randrange(2, 20), dice.randrange(2, 30))

    done = prune(store, keep, dice.randrange(3), keep_for, is_dry=False)

    world.server.heal()
    spared = listed | pinned & world.pinned
    spared |= world.server.current_since(before - timedelta(seconds=keep_for))
    came = {revision for _, revision in world.server.turns[turns:]}
    if not came:
        spared |= previous
    spared &= there | came  # an earlier prune may have kept fewer releases
    for revision in spared:
        found = Reader(Place("", "")).pinned(world.objects(), revision)
        assert CONTENTS[revision] == {path: body for path, (body, _) in found.tree.items()}
    return len(done.removed)
