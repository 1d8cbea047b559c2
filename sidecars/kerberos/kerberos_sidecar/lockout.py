"""
Remembers which keys the KDC refused, and when, so that retries never lock an account.

The memory is a file beside each ccache, ``.NAME.refused``, with a line for the stamp of
each keytab: restarts and the command ``check`` count as much as the daemon, and so do
another ccache with the same keys, and another uid with the same group. Consumers may be
able to write it.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from contextlib import suppress

from kerberos_sidecar.keytab import Keytab
from kerberos_sidecar.plan import iso
from kerberos_sidecar.reasons import failure
from kerberos_sidecar.settings import Settings
from sidecar_runtime.volume.files import read_file, write_file

# The margin beyond the lockout window: a KDC uses its own clock, in whole seconds, and
# MIT's still counts a failure that is exactly as old as its window.
WINDOW_MORE_SHARE = 1 / 30
WINDOW_MORE_SECONDS = 2.0

# The newest that a memory holds, so that it is never too long to be read back.
MOST_KEYTABS = 100


def window_wait(refused_at: float, now: float, window_seconds: float) -> float:
    """
    Return the seconds until keys that the KDC has refused may be tried again.

    A policy forgets failures only after a whole window without one, so tries that are
    closer together add up, however few they are.

    Args:
        refused_at, now: Unix times; one that is ahead (the clock was set back) does not
            count.
    """
    if not window_seconds or refused_at > now:
        return 0.0
    more_seconds = max(WINDOW_MORE_SECONDS, window_seconds * WINDOW_MORE_SHARE)
    return max(0.0, refused_at + window_seconds + more_seconds - now)


def check_refused(keytab: Keytab, settings: Settings, since: float = -math.inf) -> None:
    """
    Args:
        since: Refusals before this Unix time do not count.

    Raises:
        SidecarError: The KDC has refused these keys, and more tries could lock the
            account.
    """
    now = time.time()
    window_seconds = settings.lockout_window_seconds
    times = [
        _times(entry.ccache).get(keytab.stamp, -math.inf) for entry in settings.entries
    ]
    waits = [window_wait(at, now, window_seconds) for at in times if at >= since]
    wait_seconds = max(waits, default=0.0)
    if wait_seconds:
        text = (
            f"the KDC has refused the key of {keytab.principal} (kvno {keytab.kvno}) in "
            f"{keytab.path}; it is not tried again before {iso(now + wait_seconds)}"
        )
        raise failure("keytab_stale", text, wait_seconds=wait_seconds)


def note(ccache: str, keytab: Keytab) -> None:
    """
    Remember that the KDC has refused these keys now.
    """
    path = _memory(ccache)
    before = _times(ccache)
    before.pop(keytab.stamp, None)
    times = [*before.items(), (keytab.stamp, time.time())][-MOST_KEYTABS:]
    content = "\n".join(f"{at} {stamp}" for stamp, at in times)
    shutil.rmtree(path, ignore_errors=True)  # a folder, in the way of the file
    with suppress(OSError):  # the volume turned full or read-only meanwhile
        write_file(path, content.encode(), 0o640, fsync=False)
        os.chown(path, -1, os.stat(os.path.dirname(path)).st_gid, follow_symlinks=False)


def forget(ccache: str) -> None:
    """
    Forget refusals: the KDC has accepted the keys, and counts from 0.
    """
    with suppress(OSError):
        os.unlink(_memory(ccache))


def _memory(ccache: str) -> str:
    folder, name = os.path.split(ccache)
    return os.path.join(folder, f".{name}.refused")


def _times(ccache: str) -> dict[str, float]:
    """
    Return when which keys were refused, as Unix times; empty if that is not known.
    """
    with suppress(OSError, ValueError):
        lines = read_file(_memory(ccache), 1 << 16).decode().splitlines()
        return {
            stamp: float(at) for at, _, stamp in (line.partition(" ") for line in lines)
        }
    return {}
