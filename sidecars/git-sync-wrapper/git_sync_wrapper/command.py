"""
The command line of ``git-sync-wrapper``: reads the arguments and creates the context.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence

from git_sync_wrapper.context import Context, Past
from git_sync_wrapper.engine import passthrough
from git_sync_wrapper.engine.engine import GRACE_SECONDS, Engine
from git_sync_wrapper.error_file import ErrorFile
from git_sync_wrapper.flags.options import Options, read_options
from git_sync_wrapper.hooks.runners import Hooks
from git_sync_wrapper.login.access import Access
from git_sync_wrapper.metrics import WrapperMetrics
from git_sync_wrapper.poll.polls import Polls
from git_sync_wrapper.published.record import STORE
from git_sync_wrapper.published.tree import ENGINE_ROOT
from git_sync_wrapper.settings import PREFIX, Settings, load_settings
from git_sync_wrapper.sidecar import GitSyncWrapper
from git_sync_wrapper.status import Status
from sidecar_runtime import __version__, logs, proxies
from sidecar_runtime.app import begin_logs, run_daemon
from sidecar_runtime.asking.asked import Asked
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.gate.gate import make_gate
from sidecar_runtime.gate.settings import unused_by_gate
from sidecar_runtime.http.status import About
from sidecar_runtime.settings import describe
from sidecar_runtime.volume.lock import TargetLock

# For the gate, the snapshot and the pruning, after git-sync has used its full timeout.
AFTER_SYNC_SECONDS = 60.0
SHORTEST_INTERVAL_SECONDS = 0.1
# Trees are walked recursively. A path has at most 4,096 bytes, so git checks out up to 2,047 nested
# folders, and each takes a few frames.
DEEPEST_RECURSION = 10_000

log = logs.get_logger("settings")

ALSO = (
    "GITSYNC_REPO or --repo (required) and all other settings of git-sync; AWS_REGION, AWS_PROFILE "
    "and all other variables from which the AWS SDK reads region and credentials"
)
USAGE = """\
usage: git-sync-wrapper [check] [FLAGS of git-sync...]

Runs git-sync and prevents its outages. Accepts every flag and variable of git-sync;
`git-sync-wrapper --man` shows git-sync's own manual. `git-sync-wrapper check` tests settings,
programs, credentials, the remote, the volume and the gate, and publishes nothing.

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
    arguments = sys.argv[1:]
    if arguments[:1] in (["--help"], ["-h"], ["-?"], ["--__?"]):
        sys.stdout.write(f"{USAGE}\n{describe(Settings, PREFIX, ALSO)}\n")
        return 0
    if arguments[:1] == ["--version"]:
        sys.stdout.write(f"git-sync-wrapper {__version__}\n")
        return 0
    is_check = arguments[:1] == ["check"]
    try:
        settings, unknown = load_settings(os.environ)
    except SettingsError as error:
        raise _with_flags(error, arguments[is_check:], os.environ) from None
    if arguments[:1] == ["--man"] or (settings.mode == "passthrough" and not is_check):
        return passthrough.run(settings.git_sync, arguments, os.environ)
    if arguments and not arguments[0].startswith("-") and not is_check:
        allowed = "is neither check nor a flag of git-sync"
        raise SettingsError([Problem("COMMAND", arguments[0], allowed)])
    options = read_options(
        arguments[is_check:],
        os.environ,
        has_username=settings.username_file is not None,
        has_password=settings.credentials.kind == "secrets-manager",
    )
    _check_link(options)
    if is_check:
        from git_sync_wrapper import check  # noqa: PLC0415 - the daemon does not need it

        return check.run(settings, unknown, options, os.environ)
    settings = _joined(settings, options)
    unused = unused_by_gate(settings, PREFIX) | proxies.ignored(os.environ)
    begin_logs(settings, unknown, unused)
    sys.setrecursionlimit(DEEPEST_RECURSION)
    os.umask(0o002 if options.group_write else 0o022)
    _warn(options)
    return _serve(settings, options, os.environ)


def _with_flags(
    error: SettingsError, arguments: Sequence[str], environ: Mapping[str, str]
) -> SettingsError:
    """
    Add the problems of git-sync's own settings to an error, so that one start reports all of them.

    In passthrough mode and for ``--man`` git-sync reads its settings itself: nothing is added.
    """
    if arguments[:1] == ["--man"] or environ.get(f"{PREFIX}MODE") == "passthrough":
        return error
    try:
        read_options(arguments, environ, has_username=True, has_password=True)
    except SettingsError as other:
        return SettingsError([*error.problems, *other.problems])
    return error


def _check_link(options: Options) -> None:
    """
    Refuse a link that would replace the root or the wrapper's own folders in it.

    Raises:
        SettingsError: The link would replace one of them.
    """
    folder, name = os.path.split(options.link)
    link = os.path.join(os.path.realpath(folder), name)
    own = [os.path.join(options.root, name) for name in (STORE, ENGINE_ROOT)]
    if _is_below(options.root, link) or any(_is_below(link, path) for path in own):
        allowed = f"is reserved: use a name such as repo, not the root, {STORE} or {ENGINE_ROOT}"
        raise SettingsError([Problem("GITSYNC_LINK", options.link, allowed)])


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath((path, folder)) == folder


def _joined(settings: Settings, options: Options) -> Settings:
    """
    Return our settings, merged with the settings of git-sync that have the same meaning.
    """
    runs = 1 if options.submodules == "off" else 2
    least = runs * (options.sync_timeout_seconds + GRACE_SECONDS) + AFTER_SYNC_SECONDS
    return dataclasses.replace(
        settings,
        interval_seconds=max(SHORTEST_INTERVAL_SECONDS, options.period_seconds),
        one_shot=settings.one_shot or options.one_time,
        timeout_seconds=max(settings.timeout_seconds, least),
    )


def _warn(options: Options) -> None:
    for loser, winner in options.overridden:
        log.warning("setting_overridden", setting=loser, by=winner)
    if options.ignored:
        why = "git-sync ignores arguments that are not flags; give switches with =: --one-time=true"
        log.warning("setting_unused", setting="arguments", count=len(options.ignored), why=why)
    if options.http_pprof:
        log.warning("setting_unused", setting="--http-pprof", why="git-sync runs only for a sync")


def _serve(settings: Settings, options: Options, environ: Mapping[str, str]) -> int:
    revision = environ.get("SIDECAR_REVISION", "unknown")
    metrics = WrapperMetrics(__version__, revision)
    access = Access(settings, options, environ)
    status = Status(
        options,
        {"repository": options.shown_repo, "ref": options.ref, "mode": settings.mode},
    )
    hooks = Hooks(options, environ, metrics.git_sync.count_hook)
    context = Context(
        settings=settings,
        options=options,
        environ=environ,
        engine=Engine(
            settings.git_sync,
            options,
            access,
            environ,
            root=os.path.join(options.root, ENGINE_ROOT),
            count_healed=metrics.healed.inc,
        ),
        poller=Polls(options, access, environ),
        gate=make_gate(settings, metrics.gate, pin="GITSYNC_REF" if options.is_pinned else ""),
        hooks=hooks,
        metrics=metrics,
        status=status,
        report=ErrorFile(options.error_file),
        past=Past(TargetLock()),
        asked=Asked() if settings.answers else None,
    )
    sidecar = GitSyncWrapper(context)
    about = About("git-sync-wrapper", __version__, options.source, options.link)
    if options.http_bind and not settings.one_shot:
        from git_sync_wrapper.chart_port import ChartPort  # noqa: PLC0415 - no server in one-shots

        told = metrics.git_sync.families if options.http_metrics else None
        ChartPort(options.http_bind, lambda: status.readiness.ready, told).start()
    access.start()
    hooks.start()
    try:
        return run_daemon(sidecar, settings, about, metrics, watch=sidecar.watch)
    finally:
        hooks.stop()
        access.close()
