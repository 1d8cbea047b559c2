"""
Run the user's hooks after a swap of the link: a command, a web request, a touched file.

As in git-sync, each hook runs in its own thread, for the newest commit only, and is retried until
it succeeds. The first sync of a process counts as a change.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.hooks.hook import Exechook, HookFailed
from git_sync_wrapper.published.record import STORE
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.trees import FOLDER_MODE

if TYPE_CHECKING:
    from git_sync_wrapper.hooks.webhook import Webhook

log = get_logger("hooks")

Count = Callable[[str, str], None]
Hook: TypeAlias = "Exechook | Webhook"


class PrePublishError(SidecarError):
    """
    The pre-publish hook refuses a commit, or fails.
    """


class HookRunner:
    """
    Runs one hook in a thread, for the newest commit that was sent.

    Attributes:
        problem: The last failure, without secrets; empty once the hook has succeeded.
    """

    def __init__(self, hook: Hook, count: Count) -> None:
        self.hook = hook
        self.problem = ""
        self._count = count
        self._fence = Fence()
        self._changed = threading.Condition()
        self._commit = ""
        self._is_stopped = False

    def start(self) -> None:
        """
        Start the thread, which waits for commits.
        """
        threading.Thread(target=self._work, name=self.hook.name, daemon=True).start()

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
        with self._changed:
            self._is_stopped = True
            self._changed.notify()

    def run_once(self, commit: str, fence: Fence) -> str:
        """
        Run the hook once, in this thread; return :attr:`problem`.

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        try:
            self.hook.run(commit, fence)
        except HookFailed as error:
            self.problem = f"{self.hook.name} failed for {commit}: {error.why}"
            self._count(self.hook.name, "error")
            log.error("hook_failed", hook=self.hook.name, revision=commit, error=str(error))
        else:
            self.problem = ""
            self._count(self.hook.name, "success")
        return self.problem

    def _work(self) -> None:
        done = ""
        with suppress(CycleAbandoned):
            while True:
                with self._changed:
                    while not self._is_stopped and self._commit == done:
                        self._changed.wait()
                    commit = self._commit
                if self._is_stopped:
                    return
                if not self.run_once(commit, self._fence):
                    done = commit
                    continue
                with self._changed:
                    self._changed.wait_for(lambda: self._is_stopped, self.hook.backoff_seconds)


class Hooks:
    """
    All hooks and the touch-file of one wrapper.
    """

    def __init__(self, options: Options, environ: Mapping[str, str], count: Count) -> None:
        self._touch_file = options.touch_file
        self._touch_problem = ""
        after = _exechooks("exechook", options, environ) + _webhooks(options)
        before = _exechooks("pre-publish-exechook", options, environ)
        self._runners = [HookRunner(hook, count) for hook in after]
        self._before = [HookRunner(hook, count) for hook in before]

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

    def prepublish(self, commit: str, fence: Fence) -> None:
        """
        Run the pre-publish hook.

        Raises:
            PrePublishError: The hook failed: do not publish the commit; a later cycle retries.
            CycleAbandoned: The fence was revoked.
        """
        for runner in self._before:
            if problem := runner.run_once(commit, fence):
                raise PrePublishError(
                    "pre_publish_hook_failed",
                    problem,
                    "Check the hook's output in the log. The last good commit stays; the hook is "
                    "retried.",
                )

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
        if not self._touch_file:
            return
        try:
            os.makedirs(os.path.dirname(self._touch_file), FOLDER_MODE, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
            os.close(os.open(self._touch_file, flags, 0o666))
            now = time.time()
            os.utime(self._touch_file, (now, now))
            self._touch_problem = ""
        except OSError as error:
            self._touch_problem = f"touch-file failed: {error.strerror}"
            log.error("touch_failed", path=self._touch_file, error=error.strerror)


def _exechooks(name: str, options: Options, environ: Mapping[str, str]) -> list[Hook]:
    store = os.path.join(options.root, STORE)
    parts = ("command", "timeout_seconds", "backoff_seconds")
    command, timeout, backoff = (
        getattr(options, f"{name.replace('-', '_')}_{part}") for part in parts
    )
    return [Exechook(name, command, timeout, backoff, environ, store)] if command else []


def _webhooks(options: Options) -> list[Hook]:
    if not options.webhook_url:
        return []
    from git_sync_wrapper.hooks.webhook import Webhook  # noqa: PLC0415 - seldom needed

    return [
        Webhook(
            options.webhook_url,
            options.webhook_method,
            options.webhook_success_status,
            options.webhook_timeout_seconds,
            options.webhook_backoff_seconds,
        )
    ]
