"""
The user's actions around the swap of the link: commands, a web request, a touched file; and the
error-file.

As in git-sync, each hook runs in its own thread, for the newest commit only, and is retried until it
succeeds. The first sync of a process counts as a change.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from git_sync_wrapper import web
from git_sync_wrapper.options import Options
from git_sync_wrapper.reasons import failure
from git_sync_wrapper.record import STORE
from sidecar_runtime import child
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import write_file
from sidecar_runtime.volume.trees import FOLDER_MODE

SAID_BYTES = 2000

log = get_logger("hooks")


class HookFailed(Exception):
    """
    A hook did not succeed.

    Args:
        why: The cause, in our words.
        said: The output of the hook, or the system's error. Only for the log: it may hold secrets.
    """

    def __init__(self, why: str, said: str = "") -> None:
        super().__init__(f"{why}: {said}" if said else why)
        self.why = why


class Hook(NamedTuple):
    """
    Args:
        run: Runs it once for a commit, in the folder; raises :class:`HookFailed`, or
            ``CycleAbandoned`` if the fence is revoked.
    """

    name: str
    run: Callable[[str, str, Fence], None]
    backoff_seconds: float


def exechook(
    name: str, command: str, seconds: float, backoff: float, environ: Mapping[str, str]
) -> list[Hook]:
    """
    Return the hook that runs a program in the folder of the commit, with its hash in
    ``GITSYNC_HASH``; none without a command.
    """

    def run(commit: str, folder: str, fence: Fence) -> None:
        said = child.Kept(SAID_BYTES)
        given = child.Command([command], {**environ, "GITSYNC_HASH": commit}, folder)
        try:
            code = child.run(given, fence, seconds, said)
        except child.DeadlinePassed:
            raise HookFailed(f"it did not end within {seconds:g} s") from None
        except OSError as error:
            raise HookFailed(f"it cannot be started: {error.strerror}") from None
        if code != 0:
            raise HookFailed(f"it ended with {child.ending(code)}", str(said))
        log.debug("hook_said", hook=name, output=str(said))

    return [Hook(name, run, backoff)] if command else []


def webhook(options: Options) -> list[Hook]:
    """
    Return the hook that sends a request with the commit's hash in its header ``Gitsync-Hash``; none
    without a URL.
    """
    expected = options.webhook_success_status  # 0 or less: any status

    def run(commit: str, _: str, fence: Fence) -> None:
        with fence:
            pass
        try:
            method, headers = options.webhook_method, {"Gitsync-Hash": commit}
            status, _body = web.request(
                method, options.webhook_url, headers, options.webhook_timeout
            )
        except (OSError, ValueError) as error:
            raise HookFailed("no answer", str(error)) from None
        if 0 < expected != status:
            raise HookFailed(f"the answer is {status} instead of {expected}")

    return [Hook("webhook", run, options.webhook_backoff)] if options.webhook_url else []


class HookRunner:
    """
    Runs one hook in a thread, for the newest commit that was sent.

    Args:
        store: The folder of all commits.

    Attributes:
        problem: The last failure, without secrets; empty once the hook has succeeded.
    """

    def __init__(self, hook: Hook, store: str, count: Callable[[str, str], None]) -> None:
        self.problem = ""
        self._hook = hook
        self._store = store
        self._count = count
        self._fence = Fence()
        self._changed = threading.Condition()
        self._commit = ""

    def start(self) -> None:
        """
        Start the thread, which waits for commits.
        """
        threading.Thread(target=self._work, name=self._hook.name, daemon=True).start()

    def send(self, commit: str) -> None:
        """
        Run the hook for a commit; this replaces a commit that is still waiting.
        """
        with self._changed:
            self._commit = commit
            self._changed.notify()

    def stop(self) -> None:
        """
        Kill a running hook, and start no other.
        """
        self._fence.revoke()
        self.send("")  # to end the wait

    def run_once(self, commit: str, fence: Fence, folder: str = "") -> str:
        """
        Run the hook once, in this thread; return :attr:`problem`.

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        name = self._hook.name
        try:
            self._hook.run(commit, folder or os.path.join(self._store, commit), fence)
        except HookFailed as error:
            self.problem = f"{name} failed for {commit}: {error.why}"
            self._count(name, "error")
            log.error("hook_failed", hook=name, revision=commit, error=str(error))
        else:
            self.problem = ""
            self._count(name, "success")
        return self.problem

    def _work(self) -> None:
        done = ""
        with suppress(CycleAbandoned):
            while not self._fence.is_revoked:
                with self._changed:
                    while self._commit == done and not self._fence.is_revoked:
                        self._changed.wait()
                    commit = self._commit
                if self._fence.is_revoked:
                    return
                if not self.run_once(commit, self._fence):
                    done = commit
                    continue
                self._fence.wait(self._hook.backoff_seconds)


class Hooks:
    """
    All hooks, the touch-file and the error-file of one wrapper.
    """

    def __init__(
        self, options: Options, environ: Mapping[str, str], count: Callable[[str, str], None]
    ) -> None:
        self._options = options
        self._touch_problem = ""
        store = os.path.join(options.root, STORE)
        after = exechook(
            "exechook",
            options.exechook_command,
            options.exechook_timeout,
            options.exechook_backoff,
            environ,
        )
        before = exechook(
            "pre-publish-exechook",
            options.pre_publish_exechook_command,
            options.pre_publish_exechook_timeout,
            options.pre_publish_exechook_backoff,
            environ,
        )
        self._runners = [HookRunner(hook, store, count) for hook in after + webhook(options)]
        self._before = [HookRunner(hook, store, count) for hook in before]

    @property
    def problem(self) -> str:
        """
        The failures of the last attempts, as :attr:`HookRunner.problem`.
        """
        problems = [self._touch_problem, *(runner.problem for runner in self._runners)]
        return "; ".join(filter(None, problems))

    def start(self) -> None:
        """
        Start a thread for each hook, which waits for commits.
        """
        for runner in self._runners:
            runner.start()

    def stop(self) -> None:
        """
        Kill all running hooks.
        """
        for runner in self._runners:
            runner.stop()

    def prepublish(self, commit: str, folder: str, fence: Fence) -> None:
        """
        Run the pre-publish hook.

        Raises:
            SidecarError: The hook failed: do not publish the commit; a later cycle retries.
            CycleAbandoned: The fence was revoked.
        """
        for runner in self._before:
            if problem := runner.run_once(commit, fence, folder):
                raise failure("pre_publish_hook_failed", problem)

    def announce(self, commit: str) -> None:
        """
        Touch the file, and run the hooks for a commit in their threads.
        """
        self._touch()
        for runner in self._runners:
            runner.send(commit)

    def announce_once(self, commit: str, fence: Fence) -> str:
        """
        Touch the file, and run each hook once in this thread; return the errors, if any.

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        self._touch()
        problems = [runner.run_once(commit, fence) for runner in self._runners]
        return "; ".join(filter(None, problems))

    def _touch(self) -> None:
        path = self._options.touch_file
        if not path:
            return
        try:
            os.makedirs(os.path.dirname(path), FOLDER_MODE, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
            os.close(os.open(path, flags, 0o666))
            os.utime(path, (time.time(), time.time()))
            self._touch_problem = ""
        except OSError as error:
            self._touch_problem = f"touch-file failed: {error.strerror}"
            log.error("touch_failed", path=path, error=error.strerror)

    # --- the error-file, in git-sync's own format

    def report(self, error: SidecarError, failures: int) -> None:
        """
        Write a failure; an error while writing is only logged.
        """
        path = self._options.error_file
        if not path:
            return
        facts = {"Msg": error.reason, "Err": error.message, "Args": {"failCount": failures}}
        try:
            os.makedirs(os.path.dirname(path), FOLDER_MODE, exist_ok=True)
            write_file(path, json.dumps(facts).encode(), 0o644, fsync=False)
        except OSError as problem:
            log.warning("error_file_failed", path=path, error=problem.strerror)

    def clear_report(self) -> None:
        """
        Remove the file after a success.
        """
        if self._options.error_file:
            with suppress(OSError):
                os.unlink(self._options.error_file)
