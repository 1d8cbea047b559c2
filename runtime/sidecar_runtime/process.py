"""
The life cycle of a process after its imports: settings, running daemon, exit code.
"""

from __future__ import annotations

import logging
import os
import resource
import select
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NoReturn

from sidecar_runtime import logs
from sidecar_runtime.aws import early
from sidecar_runtime.errors import EXIT_BUG, SettingsError, SidecarError
from sidecar_runtime.health import Health
from sidecar_runtime.http.status import About
from sidecar_runtime.loop import Loop
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.pod import find_pod
from sidecar_runtime.settings import CommonSettings, changed_settings
from sidecar_runtime.sidecar import Sidecar

log = logs.get_logger("sidecar")


def raise_file_limit() -> None:
    """
    Raise the soft limit of open files, which is low for the sake of select(), to the hard limit.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def forbid_core_dumps() -> None:
    """
    Keep keys and passwords out of core files, including those of children.

    The kernel ignores a limit of 0 if ``core_pattern`` is a pipe (systemd-coredump, apport), but
    with 1 it dumps nothing, because it assumes a crash of the pipe's own program (fs/coredump.c).
    A hard limit of 0 stays 0, because only root can raise it.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 0 if most == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def begin_logs(
    settings: CommonSettings, unknown: Mapping[str, str], unused: Mapping[str, str] | None = None
) -> None:
    """
    Configure logging from the settings, and warn about variables that have no effect.

    Args:
        unknown: Variables that are not settings, each with the setting that may be meant.
        unused: Variables that another setting makes irrelevant, each with the explanation.
    """
    logs.configure(settings.log_level, settings.log_format, may_drop=True)
    warn_unknown(unknown)
    for name, why in (unused or {}).items():
        logs.get_logger("settings").warning("setting_unused", setting=name, why=why)


def warn_unknown(names: Mapping[str, str]) -> None:
    """
    Log variables that are not settings, each with the setting that may be meant.
    """
    for name, right in names.items():
        meant = {"instead": right} if right else {}
        logs.get_logger("settings").warning("setting_unknown", setting=name, **meant)


def run_daemon(
    sidecar: Sidecar,
    settings: CommonSettings,
    prefix: str,
    about: About,
    metrics: Metrics,
    *,
    watch: Callable[[Callable[[], None]], object] = lambda wake: None,
) -> int:
    """
    Serve the HTTP endpoint and run cycles until the process should end; return the exit code.

    Args:
        about: Its `settings` replace what the environment says under our names, if there are any.
        watch: Called once with a function that triggers a cycle immediately, for a sidecar that
            watches its source in its own thread.

    Raises:
        SidecarError: It gave up, or could not listen.
    """
    raise_file_limit()
    health = Health()
    metrics.ready.set_function(lambda: float(sidecar.readiness().ready))
    log.info("sidecar_started", version=about.version, source=about.source, target=about.target)
    about = about._replace(
        pod=find_pod(os.environ),
        settings=about.settings or changed_settings(type(settings), prefix, os.environ),
    )
    loop = Loop(sidecar, settings, health, metrics)
    if not settings.one_shot:
        from sidecar_runtime.http.endpoint import Endpoint  # noqa: PLC0415 - no server in one-shots

        Endpoint(
            settings.http_bind,
            f"{prefix}HTTP_BIND",
            about=about,
            health=health,
            sidecar=sidecar,
            metrics=metrics,
            show_status=settings.status_page,
        ).start()
    watch(loop.wake)
    code = loop.run()
    log.info("sidecar_stopped", exit_code=code)
    return code


def run_main(main: Callable[[], int], prefix: str) -> NoReturn:
    """
    Run a command and end the process with its exit code.

    Ends with ``os._exit``: a cycle's thread may be stuck in a system call (a name server, a dead
    network file system), on which the interpreter's regular shutdown would wait or fail.

    Args:
        prefix: The prefix of the settings; LOG_FORMAT applies to settings errors, too.
    """
    code = EXIT_BUG
    _open_missing_streams()
    logs.configure("info", os.environ.get(f"{prefix}LOG_FORMAT", "").strip().lower() or None)
    try:
        code = main()
    except SystemExit as end:  # argparse
        code = end.code if isinstance(end.code, int) else EXIT_BUG
    except SettingsError as error:
        for problem in error.problems:
            log.error(
                "setting_rejected",
                setting=problem.setting,
                **({} if problem.value is None else {"value": problem.value}),
                problem=problem.problem,
            )
        warn_unknown(error.unknown)
        code = error.exit_code
    except SidecarError as error:
        log.error("sidecar_gave_up", reason=error.reason, error=error.message, advice=error.advice)
        code = error.exit_code
    except BaseException as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            code = 128 + signal.SIGPIPE  # as in a shell: `sync-perm diff | head`
        else:
            log.exception("sidecar_crashed")
    finally:
        early.drop()
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                code = code or EXIT_BUG
        os._exit(code)


def _open_missing_streams() -> None:
    """
    Open /dev/null as standard output or error if the parent process closed it.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the end


def _nobody_reads() -> bool:
    """
    Return whether standard output is a pipe whose other end is closed.
    """
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))
