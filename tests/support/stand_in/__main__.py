"""
A small stand-in for the git-sync binary, for machines that do not have it.

It runs the same git commands in the same order as git-sync 4.7.1, takes the same flags and
variables, ends with the same codes, and fails in the same ways: it wipes its root when a check
fails, is stuck by a `tmp-link`, leaves git behind on SIGTERM, keeps credentials for an hour.
Left out: GitHub Apps, pprof, cookie files, acting as process 1, most of the log lines.
Standard library only, as it is a program of its own: nothing here is imported by tests.
`git-sync` beside this file runs it; as one file it is a zipapp (tests/images/git-sync-image).
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from flags import parse
from hooks import Hook
from settings import Settings
from sync import Sync, SyncFailed

VERSION = "v4.7.1-stand-in"


def serve(settings: Settings, sync: Sync, counts: Counter[str]) -> None:
    """
    Answer on --http-bind, in a thread.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = (200, "") if sync.ready else (503, "repo is not ready\n")
            if settings.values["http-metrics"] and self.path == "/metrics":
                status = 200
                body = "".join(f"{name} {count}\n" for name, count in sorted(counts.items()))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    host, _, port = settings.values["http-bind"].rpartition(":")
    try:
        server = ThreadingHTTPServer((host.strip("[]"), int(port)), Handler)
    except OSError as error:
        settings.log.failure("can't bind HTTP endpoint", error)
        sys.exit(1)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def add_user() -> None:
    """
    Write an entry for this user to /etc/passwd, unless there is one.
    """
    passwd = Path("/etc/passwd")
    if not any(line.split(":")[2:3] == [str(os.getuid())] for line in passwd.open()):
        home = os.environ.get("HOME", "/tmp")
        with passwd.open("a") as file:
            file.write(f"git-sync:x:{os.getuid()}:{os.getgid()}::{home}:/sbin/nologin\n")


def loop(settings: Settings) -> int:
    """
    Sync for ever, or once; returns the exit code.
    """
    values, log = settings.values, settings.log
    counts: Counter[str] = Counter({"git_fetch_count_total": 0})
    sync = Sync(settings, counts)
    sync.configure()
    if values["http-bind"]:
        serve(settings, sync, counts)
    used = {"exechook": settings.exechook, "webhook": values["webhook-url"]}
    hooks = [Hook(settings, name, counts) for name, target in used.items() if target]
    for hook in hooks:
        hook.start()
    asked = threading.Event()
    if settings.signal:
        signal.signal(settings.signal, lambda *_: asked.set())
    failures, syncs, period = 0, 0, settings.init_period
    while True:
        try:
            changed, commit = sync.run()
        except (SyncFailed, OSError) as error:
            failures += 1
            counts['git_sync_count_total{status="error"}'] += 1
            first = values["init-max-failures"]
            limit = first if not syncs and first is not None else settings.max_failures
            if 0 <= limit <= failures:
                log.failure("too many failures, aborting", error, failCount=failures)
                return 1
            log.failure("error syncing repo, will retry", error, failCount=failures)
        else:
            period, failures, sync.ready = settings.period, 0, True
            if changed or syncs == 0:
                if settings.touch_file:
                    settings.touch_file.parent.mkdir(parents=True, exist_ok=True)
                    settings.touch_file.touch()
                for hook in hooks:
                    hook.send(commit)
            status = "success" if changed or syncs == 0 else "noop"
            counts[f'git_sync_count_total{{status="{status}"}}'] += 1
            syncs += 1
            try:
                sync.clean_up()
            except (SyncFailed, OSError) as error:
                log.failure("git cleanup failed", error)
            if values["one-time"]:
                for hook in hooks:
                    hook.first.wait()
                log.clear()
                return 0 if all(hook.succeeded for hook in hooks) else 1
            log.clear()
            if commit == settings.ref:
                log.info("ref appears to be a git hash, no further sync needed", ref=settings.ref)
                signal.signal(signal.SIGINT, lambda *_: os._exit(0))
                while True:
                    time.sleep(3600)
        asked.wait(period)
        asked.clear()


def main() -> None:
    """
    Parse, check, run.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    values = parse(sys.argv[1:])
    for flag, text in (("version", VERSION), ("help", "Usage: git-sync [FLAGS...]"), ("man", "")):
        if values[flag]:
            print(text)
            return
    settings = Settings(values)
    settings.log.info("starting up", version=VERSION, pid=os.getpid(), uid=os.getuid())
    if shutil.which(values["git"]) is None:
        settings.log.failure("FATAL: git executable not found", values["git"])
        sys.exit(1)
    if values["add-user"]:
        try:
            add_user()
        except OSError as error:
            settings.log.failure("FATAL: can't add user", error)
            sys.exit(1)
    sys.exit(loop(settings))


if __name__ == "__main__":
    main()
