"""
The user's actions around the swap of the link: commands, a web request, a touched file;
and the error-file.

As in git-sync, each hook runs once at a time, for the newest commit only, and is
retried until it succeeds. The first sync of a process counts as a change. The cycle
tells them of a commit at its end (``Session._announce``).
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import NamedTuple

from git_sync_wrapper.http_request import send
from git_sync_wrapper.options import Options
from git_sync_wrapper.work_folder import STORE
from sidecar_runtime import child
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.metrics import Metric
from sidecar_runtime.settings import without_password
from sidecar_runtime.volume.files import NEW_FILE
from sidecar_runtime.volume.own import folder_of, write_own

SAID_BYTES = 2000
SHOWN_CHARACTERS = 200
"""Of the last line of what a hook says."""
SECRET_CHARACTERS = 4
_SECRET = re.compile("PASS|SECRET|TOKEN|KEY|CRED|AUTH|URL|CONN|COOKIE", re.IGNORECASE)
MOST_REDIRECTS = 10
"""As Go's client follows."""

log = get_logger("hooks")


class HookFailed(Exception):
    """
    A hook did not succeed.

    Args:
        why: The cause, in our words.
        said: The output of the hook, or the system's error.
    """

    def __init__(self, why: str, said: str = "") -> None:
        said = without_secrets(said)
        super().__init__(f"{why}: {said}" if said else why)
        last = child.last_line(said)[:SHOWN_CHARACTERS]
        self.why = f"{why}: {last}" if last else why
        """With the end of what it said."""


def without_secrets(text: str) -> str:
    """
    Return a text without the values of variables with names such as TOKEN.
    """
    text = without_password(text)
    for name, value in os.environ.items():
        # a shorter one would hide half of a sentence
        if _SECRET.search(name) and len(value) >= SECRET_CHARACTERS:
            text = text.replace(value, "***")
    return text


class Hook(NamedTuple):
    """
    Args:
        run: Runs it once for a commit, in the folder; raises :class:`HookFailed`, or
            ``CycleAbandoned`` if the fence is revoked.
        turn: Held while it runs for a commit, and while it is tried again.
    """

    name: str
    run: Callable[[str, str, Fence], None]
    backoff_seconds: float
    turn: threading.Lock


def exechook(options: Options) -> list[Hook]:
    """
    Return the hook that runs a program in the folder of the commit, with its hash in
    ``GITSYNC_HASH``; none without a command.
    """
    if not options.exechook_command:
        return []

    def run(commit: str, folder: str, fence: Fence) -> None:
        said = child.Kept(SAID_BYTES)
        try:
            code = child.run(
                child.Command(
                    [options.exechook_command],
                    {**os.environ, "GITSYNC_HASH": commit},
                    folder,
                ),
                fence,
                options.exechook_timeout,
                said,
            )
        except child.DeadlinePassed:
            raise HookFailed(
                f"it did not end within {options.exechook_timeout:g} s"
            ) from None
        except (OSError, SidecarError) as error:
            raise HookFailed(f"it cannot be started: {error}") from None
        if code != 0:
            raise HookFailed(f"it ended with {child.ending(code)}", str(said))
        log.debug("hook_said", hook="exechook", output=without_secrets(str(said)))

    return [Hook("exechook", run, options.exechook_backoff, threading.Lock())]


def webhook(options: Options) -> list[Hook]:
    """
    Return the hook that sends a request with the commit's hash in its header
    ``Gitsync-Hash``; none without a URL.
    """
    if not options.webhook_url:
        return []
    import_module("urllib3")  # no hook waits for it
    expected = options.webhook_success_status  # 0 or less: any status

    def run(commit: str, _: str, __: Fence) -> None:
        try:
            answer = send(
                options.webhook_method,
                options.webhook_url,
                {"Gitsync-Hash": commit},
                redirects=MOST_REDIRECTS,
                seconds=options.webhook_timeout,
            )
        except (OSError, RuntimeError) as error:  # or no thread can be started
            raise HookFailed("no answer", str(error)) from None
        if 0 < expected != answer.status:
            raise HookFailed(f"the answer is {answer.status} instead of {expected}")

    return [Hook("webhook", run, options.webhook_backoff, threading.Lock())]


class Hooks:
    """
    All hooks, the touch-file and the error-file of one wrapper.
    """

    def __init__(self, options: Options, runs: Metric) -> None:
        self._options = options
        self._runs = runs
        self._problems: dict[str, str] = {}
        """The last failure of each, without secrets; empty once it has succeeded."""
        self._hooks = exechook(options) + webhook(options)
        self._newest = ""
        self._fence = Fence()

    @property
    def problem(self) -> str:
        """
        The failures of the last attempts.
        """
        return "; ".join(filter(None, list(self._problems.values())))

    def stop(self) -> None:
        """
        Kill all running hooks.
        """
        self._fence.revoke()

    def announce(self, commit: str) -> None:
        """
        Start the hooks for a commit, then touch the file, as git-sync does.

        Raises:
            RuntimeError: No thread can be started; call it again.
        """
        self._newest = commit
        for hook in self._hooks:
            threading.Thread(
                target=self._work, args=[hook, commit], daemon=True
            ).start()
        self._touch()

    def announce_once(self, commit: str, fence: Fence) -> str:
        """
        Touch the file, and run each hook once in this thread; return the errors, if
        any.

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        self._touch()
        return "; ".join(
            filter(None, [self._run(h, commit, fence) for h in self._hooks])
        )

    def _work(self, hook: Hook, commit: str) -> None:
        with suppress(CycleAbandoned), hook.turn:
            while commit == self._newest and self._run(hook, commit, self._fence):
                self._fence.wait(hook.backoff_seconds)

    def _run(self, hook: Hook, commit: str, fence: Fence) -> str:
        problem = ""
        folder = os.path.realpath(self._options.link)
        if commit not in folder:  # the link shows another one by now
            folder = os.path.join(self._options.root, STORE, commit)
        try:
            hook.run(commit, folder, fence)
        except HookFailed as error:
            problem = f"{hook.name} failed for {commit}: {error.why}"
            log.error("hook_failed", hook=hook.name, revision=commit, error=str(error))
        self._runs.labels(hook.name, "error" if problem else "success").inc()
        self._problems[hook.name] = problem
        return problem

    def _touch(self) -> None:
        path = self._options.touch_file
        if not path:
            return
        name = os.path.basename(path)
        problem = ""
        try:
            with folder_of(path, self._options.root) as folder:
                # What exists is not opened: it may be a pipe.
                with suppress(FileExistsError):
                    os.close(os.open(name, NEW_FILE, 0o666, dir_fd=folder))
                os.utime(name, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            problem = f"touch-file failed: {error.strerror}"
            log.error("touch_failed", path=path, error=error.strerror)
        self._problems["touch-file"] = problem

    # --- the error-file, in git-sync's own format

    def report(self, error: SidecarError, failures: int) -> None:
        """
        Write a failure; an error while writing is only logged.
        """
        path = self._options.error_file
        if not path:
            return
        text = json.dumps(
            {
                "Msg": error.reason,
                "Err": error.message,
                "Args": {"failCount": failures},
            }
        )
        try:
            with folder_of(path, self._options.root) as folder:
                write_own(os.path.basename(path), text.encode(), folder)
        except OSError as problem:
            log.warning("error_file_failed", path=path, error=problem.strerror)

    def clear_report(self) -> None:
        """
        Remove the file after a success.
        """
        path = self._options.error_file
        if path:
            with suppress(OSError), folder_of(path, self._options.root) as folder:
                os.unlink(os.path.basename(path), dir_fd=folder)
