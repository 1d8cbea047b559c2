"""
The command line of ``git-sync-wrapper``: reads the arguments and joins the parts.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence

from git_sync_wrapper.cycle import Session
from git_sync_wrapper.engine import GRACE_SECONDS
from git_sync_wrapper.options import Options, read_options
from git_sync_wrapper.settings import PREFIX, Settings, load_settings
from git_sync_wrapper.sidecar import GitSyncWrapper, WrapperMetrics, join
from git_sync_wrapper.work_folder import ROOT, STORE
from sidecar_runtime import __version__
from sidecar_runtime.app import begin_logs, run_daemon
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.health import About
from sidecar_runtime.settings import describe

# For the gate, the snapshot and the pruning, after git-sync has used its full timeout.
AFTER_SYNC_SECONDS = 60.0
SHORTEST_INTERVAL_SECONDS = 0.1

ALSO = (
    "GITSYNC_REPO or --repo (required) and all other settings of git-sync; AWS_REGION, AWS_PROFILE "
    "and all other variables from which the AWS SDK reads region and credentials"
)
USAGE = """\
usage: git-sync-wrapper [check] [FLAGS of git-sync...]

Runs git-sync and prevents its outages. Accepts every flag and variable of git-sync, which
`git-sync --man` describes. `git-sync-wrapper check` tests settings, programs, credentials, the
remote, the volume and the gate, and publishes nothing.

example:
  git-sync-wrapper --repo=https://git.example.com/dags.git --ref=main --root=/git --link=repo

Settings in addition to those of git-sync:
"""


def run() -> int:
    """
    Run the daemon or the command that the arguments name; return the exit code.

    Raises:
        SidecarError: Settings are invalid, or the daemon gave up.
    """
    is_check = sys.argv[1:2] == ["check"]
    arguments = sys.argv[2:] if is_check else sys.argv[1:]
    first = arguments[0] if arguments else ""
    if first in ("--help", "-h", "-?", "--man"):
        sys.stdout.write(f"{USAGE}\n{describe(Settings, PREFIX, ALSO)}\n")
        return 0
    if first == "--version":
        sys.stdout.write(f"git-sync-wrapper {__version__}\n")
        return 0
    if first and not first.startswith("-"):
        raise SettingsError(
            [Problem("COMMAND", first, "is neither check nor a flag of git-sync")]
        )
    settings, unknown, options = _read(arguments, os.environ)
    if is_check:
        from git_sync_wrapper import check  # noqa: PLC0415 - the daemon does not need it

        return check.run(settings, unknown, options)
    begin_logs(settings, unknown)
    os.umask(0o002 if options.group_write else 0o022)
    return _serve(settings, options)


def _read(
    arguments: Sequence[str], environ: Mapping[str, str]
) -> tuple[Settings, list[str], Options]:
    """
    Return our settings, the unknown variables with our prefix, and git-sync's settings.

    Raises:
        SettingsError: Some are invalid; it lists all of them.
    """
    settings, unknown = load_settings(environ)
    options = read_options(arguments, environ)
    _check_link(options)
    least = options.sync_timeout + GRACE_SECONDS + AFTER_SYNC_SECONDS
    settings = dataclasses.replace(
        settings,
        interval_seconds=max(SHORTEST_INTERVAL_SECONDS, options.period),
        one_shot=settings.one_shot or options.one_time,
        timeout_seconds=max(settings.timeout_seconds, least),
    )
    return settings, unknown, options


def _check_link(options: Options) -> None:
    """
    Refuse a link that would replace the root or the wrapper's own folders in it.
    """
    folder, name = os.path.split(options.link)
    link = os.path.join(os.path.realpath(folder), name)
    own = [os.path.join(options.root, each) for each in (STORE, ROOT)]
    if _is_below(options.root, link) or any(_is_below(link, path) for path in own):
        raise SettingsError(
            [
                Problem(
                    "GITSYNC_LINK",
                    options.link,
                    f"is reserved: use another name, such as repo, not the root or {own}",
                )
            ]
        )


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath((path, folder)) == folder


def _serve(settings: Settings, options: Options) -> int:
    metrics = WrapperMetrics(is_read=not settings.one_shot)
    parts = join(settings, options, metrics)
    sidecar = GitSyncWrapper(parts, lambda: Session(parts))
    if options.http_bind and not settings.one_shot:
        from git_sync_wrapper.chart_port import ChartPort  # noqa: PLC0415 - no server in one-shots

        ChartPort(
            options.http_bind,
            lambda: parts.past.readiness.ready,
            metrics.git_sync if options.http_metrics else None,
        ).start()
    try:
        return run_daemon(
            sidecar,
            settings,
            About("git-sync-wrapper", __version__, options.source, options.link),
            metrics,
            watch=sidecar.watch,
        )
    finally:
        parts.hooks.stop()
        parts.logins.close()
