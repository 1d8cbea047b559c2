"""
The signed turns that a volume has seen, so that an older one is noticed whoever looks next.
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
    A later turn was seen, or another one of the same sequence.
    """


class Seen:
    """
    The last turn of each place and each key, in `.s3-sync/seen.json`.

    What a key has signed counts for as long as the key is trusted: whoever replaces a stolen one
    is rid of whatever the thief made the volumes believe.

    Args:
        remembers: Whether turns are written down; a rehearsal only compares.
    """

    def __init__(self, settings: Settings, *, remembers: bool) -> None:
        self._folder = f"{settings.dest_path}/{RESERVED}"
        self._fsync = settings.fsync
        self._source = settings.source
        self._remembers = remembers
        # Of this session, which a neighbor who may write to the volume cannot make forget.
        self._own: dict[str, Turn] = {}

    def check(self, turn: Turn, keys: Keys) -> None:
        """
        Raises:
            Replayed: It is older than what was seen here, or another one of the same sequence.
        """
        kept = self._read().get(self._source, {})
        own = ((key_id, one.sequence, one.revision) for key_id, one in self._own.items())
        written = ((key_id, one["sequence"], one["revision"]) for key_id, one in kept.items())
        seen = [facts for key_id, *facts in (*own, *written) if key_id in keys.by_id]
        sequence, revision = max(seen, default=(0, ""))
        if turn.sequence < sequence:
            raise Replayed(f"its sequence is {turn.sequence}, and {sequence} was seen here")
        if turn.sequence == sequence and turn.revision != revision:
            said = f"its sequence {sequence} was that of {short(revision)} here"
            raise Replayed(f"{said}, and is that of {short(turn.revision)} now")

    def note(self, turn: Turn, key_id: str, fence: Fence) -> None:
        """
        Remember a turn that was found good.

        Raises:
            OSError: It cannot be written down.
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
        Return what is written down and well-formed; a file that is not is one that was lost.
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
