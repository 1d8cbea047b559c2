"""
Remembers on the volume the signed turns that were seen, in order to refuse older ones later.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from s3_sync.keys import RESERVED
from s3_sync.release.pointer import SEQUENCE_LIMIT, Turn
from s3_sync.revision import is_revision, short
from s3_sync.settings import Settings
from s3_sync.signature import Keys, Untrusted
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.files import read_facts, write_file
from sidecar_runtime.volume.trees import FOLDER_FLAGS

NAME = "seen.json"


class Replayed(Untrusted):
    """
    A later turn was seen before, or another turn with the same sequence.
    """


class Seen:
    """
    The last turn of each place and key, in `.s3-sync/seen.json`.

    The turns of a key count only while it is trusted: replacing a stolen key also discards the
    turns that the thief has signed.

    Args:
        remembers: Whether to write turns to the volume; a check only compares.
    """

    def __init__(self, settings: Settings, *, remembers: bool) -> None:
        self._folder = f"{settings.dest_path}/{RESERVED}"
        self._fsync = settings.fsync
        self._source = settings.source
        self._remembers = remembers
        # Turns seen by this process; another writer on the volume cannot remove them.
        self._own: dict[str, Turn] = {}

    def check(self, turn: Turn, keys: Keys) -> None:
        """
        Raises:
            Replayed: It is older than a turn seen here, or another turn with the same sequence.
        """
        kept = self._read().get(self._source, {})
        own = ((key_id, one.sequence, one.revision) for key_id, one in self._own.items())
        written = ((key_id, one["sequence"], one["revision"]) for key_id, one in kept.items())
        seen = [facts for key_id, *facts in (*own, *written) if key_id in keys.by_id]
        sequence, revision = max(seen, default=(0, ""))
        if turn.sequence < sequence:
            raise Replayed(f"its sequence is {turn.sequence}, but {sequence} was already seen here")
        if turn.sequence == sequence and turn.revision != revision:
            said = f"its sequence {sequence} was seen here with release {short(revision)}"
            raise Replayed(f"{said}, but now names {short(turn.revision)}")

    def note(self, turn: Turn, key_id: str, fence: Fence) -> None:
        """
        Remember a verified turn.

        Raises:
            OSError: It cannot be written.
            CycleAbandoned: The fence was revoked.
        """
        self._own[key_id] = turn
        facts = {"sequence": turn.sequence, "revision": turn.revision}
        kept = self._read()
        here = kept.setdefault(self._source, {})
        if not self._remembers or here.get(key_id) == facts:
            return
        here[key_id] = facts
        state = os.open(self._folder, FOLDER_FLAGS)
        try:
            with fence:
                data = json.dumps(kept).encode() + b"\n"
                write_file(NAME, data, 0o664, fsync=self._fsync, dir_fd=state)
        finally:
            os.close(state)

    def _read(self) -> dict[str, dict[str, Any]]:
        """
        Return the well-formed turns in the file; a damaged file counts as missing.
        """
        facts: dict[str, Any] = {}
        with suppress(OSError):
            state = os.open(self._folder, FOLDER_FLAGS)
            try:
                facts = read_facts(NAME, state)
            finally:
                os.close(state)
        return {
            source: {key_id: turn for key_id, turn in turns.items() if _is_turn(turn)}
            for source, turns in facts.items()
            if isinstance(turns, dict)
        }


def _is_turn(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and type(found.get("sequence")) is int
        and 0 < found["sequence"] <= SEQUENCE_LIMIT
        and is_revision(found.get("revision"))
    )
