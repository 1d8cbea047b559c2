"""
Remembers which keys the KDC refused, and when, so that retries never lock an account.

The memory is a file beside each ccache, ``.NAME.refused``, with a line for the stamp of
each keytab: restarts and the command ``check`` count as much as the daemon, and so do
another ccache with the same keys, and another uid with the same group. Consumers may be
able to write it, so the process remembers its own refusals, too.
"""

import os
import shutil
import time
from contextlib import suppress

from kerberos_sidecar.keytab import Keytab
from kerberos_sidecar.settings import Settings
from sidecar_runtime.volume.files import read_file, write_file

# Refusals of this process: the Unix time of the last one by the name in a memory.
_own: dict[str, float] = {}


def wait_seconds(keytab: Keytab, settings: Settings, *, is_asked_for: bool) -> float:
    """
    Return the seconds until keys may be tried; 0 unless the KDC has refused them.

    A policy forgets failures only after a whole window without one, so tries that are
    closer together add up, however few they are.

    Args:
        is_asked_for: Whether SIGHUP asks for this try: only such tries count.
    """
    window_seconds = settings.lockout_window_seconds
    if not window_seconds:
        return 0.0
    now = time.time()
    name = _on_sighup(keytab) if is_asked_for else keytab.stamp
    ccaches = [
        one.ccache
        for one in settings.entries
        if one.principal is None or keytab.principal.is_named(one.principal)
    ]
    times = [memory.get(name, 0.0) for memory in [_own, *map(_times, ccaches)]]
    # One that is ahead (the clock was set back) does not count.
    refused_at = max((at for at in times if at <= now), default=0.0)
    # A KDC uses its own clock, in whole seconds, and MIT's still counts a failure that
    # is exactly as old as its window.
    return max(0.0, refused_at + window_seconds + max(2.0, window_seconds / 30) - now)


def note(ccache: str, keytab: Keytab, *, is_asked_for: bool) -> None:
    """
    Remember that the KDC has refused these keys now.
    """
    path = _memory(ccache)
    now = {keytab.stamp: time.time()}
    if is_asked_for:
        now[_on_sighup(keytab)] = time.time()
    _own.update(now)
    content = "\n".join(f"{at} {name}" for name, at in (_times(ccache) | now).items())
    shutil.rmtree(path, ignore_errors=True)  # a folder, in the way of the file
    with suppress(OSError):  # the volume turned full or read-only meanwhile
        write_file(path, content.encode(), 0o640, fsync=False)
        os.chown(path, -1, os.stat(os.path.dirname(path)).st_gid, follow_symlinks=False)


def forget(ccache: str, keytab: Keytab) -> None:
    """
    Forget refusals: the KDC has accepted the keys, and counts from 0.
    """
    _own.pop(keytab.stamp, None)
    _own.pop(_on_sighup(keytab), None)
    with suppress(OSError):
        os.unlink(_memory(ccache))


def _on_sighup(keytab: Keytab) -> str:
    """
    Return the name of the last refusal on SIGHUP; any refusal has the keytab's stamp.
    """
    return f"{keytab.stamp} on SIGHUP"


def _memory(ccache: str) -> str:
    folder, name = os.path.split(ccache)
    return os.path.join(folder, f".{name}.refused")


def _times(ccache: str) -> dict[str, float]:
    """
    Return the Unix times of refusals by name; empty if they are not known.
    """
    with suppress(OSError, ValueError):
        lines = read_file(_memory(ccache), 1 << 16).decode().splitlines()
        return {
            name: float(at) for at, _, name in (line.partition(" ") for line in lines)
        }
    return {}
