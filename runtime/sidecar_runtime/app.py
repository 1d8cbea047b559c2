"""
A sidecar's process after the imports: its daemon, its exit code.
"""

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NoReturn

from sidecar_runtime import begin_process, logs, proxies
from sidecar_runtime.errors import (
    EXIT_BUG,
    SettingsError,
    SidecarError,
    explain,
    printable,
)
from sidecar_runtime.health import About, Health, Sidecar, Standing
from sidecar_runtime.loop import Loop
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.settings import CommonSettings, changed_settings

log = logs.get_logger("sidecar")


def run_main(main: Callable[[], int]) -> NoReturn:
    """
    Run a command or a daemon, and end the process with its exit code.

    Ends with ``os._exit``: a cycle's thread may be stuck in a system call (a name
    server, a dead network file system), on which the interpreter's regular shutdown
    would wait or fail.
    """
    code = EXIT_BUG
    try:
        begin_process(sys.exit)
        gc.freeze()
        gc.enable()
        logs.configure("info")
        code = main()
    except SystemExit as end:  # a signal, or argparse
        code = end.code if isinstance(end.code, int) else EXIT_BUG
    except SettingsError as error:
        for setting, value, problem in error.problems:
            given = {} if value is None else {"value": value}
            log.error("setting_rejected", setting=setting, **given, problem=problem)
        code = error.exit_code
    except BaseException as error:
        cause = explain(error)
        if isinstance(error, BrokenPipeError):
            code = 128 + signal.SIGPIPE  # as in a shell: `sync-perm diff | head`
        elif cause.reason == "bug":
            log.exception("sidecar_crashed")
        else:  # what a person can act on, such as a limit of processes
            log.error("sidecar_gave_up", **cause.log_fields())
            code = cause.exit_code
    finally:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                code = code or EXIT_BUG
        os._exit(code)


# --- the daemon


def begin_logs(settings: CommonSettings, unknown: Iterable[str]) -> None:
    """
    Configure logging from the settings, and warn about variables that have no effect.

    Args:
        unknown: Variables with our prefix that are not settings.
    """
    logs.configure(settings.log_level, may_drop=True)
    warn_unknown(unknown)
    for name, why in proxies.ignored(os.environ).items():
        logs.get_logger("settings").warning("setting_unused", setting=name, why=why)


def warn_unknown(names: Iterable[str]) -> None:
    """
    Log variables with our prefix that are not settings.
    """
    for name in names:
        logs.get_logger("settings").warning("setting_unknown", setting=printable(name))


def run_daemon(
    sidecar: Sidecar,
    settings: CommonSettings,
    about: About,
    metrics: Metrics,
    *,
    watch: Callable[[Callable[[], None]], object] = lambda wake: None,
) -> int:
    """
    Serve the HTTP endpoint and run cycles until the process should end; return the exit
    code.

    Args:
        about: Its `settings` replace what the environment says under our names, if
            there are any.
        watch: Called once with a function that triggers a cycle immediately, for a
            sidecar that watches its source in its own thread.

    Raises:
        SidecarError: It gave up, or could not listen.
    """
    health = Health()
    # Before the loop and the endpoint start their threads.
    threading.excepthook = partial(_note_crash, health)
    log.info(
        "sidecar_started",
        version=about.version,
        source=about.source,
        target=about.target,
    )
    prefix = settings.variable_prefix
    about = about._replace(
        pod=find_pod(os.environ),
        settings=about.settings or changed_settings(type(settings), prefix, os.environ),
    )
    loop = Loop(sidecar, settings, health, metrics)
    # Before the first cycle: where another process has the port, nothing is published.
    if not settings.one_shot:
        from sidecar_runtime.http.endpoint import Endpoint  # noqa: PLC0415 - no server in one-shots

        Endpoint(about, health, sidecar, metrics, settings.status_page).start(
            settings.http_bind, f"{prefix}HTTP_BIND"
        )
    watch(loop.wake)
    code = loop.run()
    log.info("sidecar_stopped", exit_code=code)
    return code


def _note_crash(health: Health, crash: threading.ExceptHookArgs) -> None:
    """
    Note that a thread has ended in a way that nobody expected: liveness restarts the
    container, because nothing else brings the thread back.
    """
    name = getattr(crash.thread, "name", "unknown")
    cause = explain(crash.exc_value or crash.exc_type())
    health.crash = Standing(
        SidecarError(
            cause.reason,
            f"the thread {name} has ended: {cause.message}",
            f"Liveness restarts the container. {cause.advice}",
        ),
        time.time(),
        result="failed",
    )
    log.error("thread_crashed", thread=name, exc_info=crash.exc_value)


def find_pod(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return ``name``, ``namespace`` and ``node`` of this pod, each empty if unknown.

    They come from ``POD_NAME``, ``POD_NAMESPACE`` and ``NODE_NAME`` (downward API).
    Without a name, it is the host name.
    """
    return {
        "name": printable(environ.get("POD_NAME") or os.uname().nodename),
        "namespace": printable(environ.get("POD_NAMESPACE", "")),
        "node": printable(environ.get("NODE_NAME", "")),
    }
