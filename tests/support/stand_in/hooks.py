"""
The exechook and the webhook, each in a thread of its own.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter

from settings import Settings
from sync import SyncFailed


class Hook(threading.Thread):
    """
    Runs one hook for the latest hash until it succeeds, in a thread of its own.
    """

    def __init__(self, settings: Settings, name: str, counts: Counter[str]) -> None:
        super().__init__(daemon=True)
        self.settings = settings
        self.name = name
        self.counts = counts
        self.hash = ""
        self.asked = threading.Event()
        self.first = threading.Event()
        self.succeeded = False

    def send(self, commit: str) -> None:
        """
        Ask for a run.
        """
        self.hash = commit
        self.asked.set()

    def run(self) -> None:
        """
        Wait, run, try again.
        """
        last = ""
        while self.asked.wait():
            self.asked.clear()
            while self.hash != last:
                commit = self.hash
                try:
                    (self._call if self.name == "webhook" else self._execute)(commit)
                except (OSError, SyncFailed, subprocess.SubprocessError) as error:
                    self._count("error")
                    self.settings.log.failure("hook failed", error, hash=commit)
                    self.first.set()
                    time.sleep(self.settings.values[f"{self.name}-backoff"])
                else:
                    self._count("success")
                    last, self.succeeded = commit, True
                    self.first.set()

    def _count(self, status: str) -> None:
        self.counts[f'git_sync_hook_run_count_total{{name="{self.name}",status="{status}"}}'] += 1

    def _call(self, commit: str) -> None:
        values = self.settings.values
        request = urllib.request.Request(values["webhook-url"], method=values["webhook-method"])
        request.add_header("Gitsync-Hash", commit)
        try:
            with urllib.request.urlopen(request, timeout=values["webhook-timeout"]) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
        if values["webhook-success-status"] > 0 and status != values["webhook-success-status"]:
            raise SyncFailed(f"received response code {status}")

    def _execute(self, commit: str) -> None:
        subprocess.run(
            [self.settings.exechook],
            cwd=self.settings.root / ".worktrees" / commit,
            env={**os.environ, "GITSYNC_HASH": commit},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=self.settings.values["exechook-timeout"],
            check=True,
        )
