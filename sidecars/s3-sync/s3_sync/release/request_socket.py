"""
Requests of consumers for revisions that the volume does not contain.

Airflow's DAG versions need them: a run finishes with the code that it started with. A
Unix socket beside the snapshots notes the requests, and a cycle fetches the revisions.
The socket is unreachable from the network and for requests forged through another
server (SSRF), and it works through a read-only mount. The answers are names, never
paths.
"""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import TypeAlias

from s3_sync import reasons
from sidecar_runtime.errors import SidecarError, json_text
from sidecar_runtime.http.listener import Answer, Listener
from sidecar_runtime.logs import get_logger
from sidecar_runtime.metrics import Metric
from sidecar_runtime.rate_limit import RateLimit
from sidecar_runtime.volume.files import stat_in
from sidecar_runtime.volume.snapshots import remove_tree

NAME = "ask.sock"
# How many revisions may be requested at once that the source has told of.
MOST = 64
# And others: some are invented, which costs a request to the source, and a line in the
# log.
MOST_UNKNOWN = 16
# After those, one of either kind may be requested in this time.
PERIOD_SECONDS = 2.0
# How long a failure is the answer before the source is asked again; remembers up to
# MOST failures.
FAILED_SECONDS = 5.0
# Reasons that are permanent: a later request gets the same answer.
GONE = {"release_missing", "release_invalid"}
_QUESTION = re.compile(r"/revisions/(sha256-[0-9a-f]{64})")

# Whether something holds for a revision.
OfRevision: TypeAlias = Callable[[str], bool]

log = get_logger("asked")


class RequestSocket:
    """
    The requests of one volume's consumers: the listener's thread asks, the cycles'
    thread answers.

    ``GET /revisions/<id>``: 200 if its snapshot exists, 202 while it is being fetched,
    404 if the source does not contain it, 503 with the reason if it cannot be fetched
    now.

    Args:
        results: The counters of answers, by result.

    Attributes:
        wake: Triggers a cycle.
        outage: Why the source is not asked now; its own backoff decides when it is
            asked again.
        waiting: The revisions that a cycle should fetch, in the order of the requests.
    """

    def __init__(self, results: Callable[[str], Metric]) -> None:
        self._results = results
        self.wake: Callable[[], None] = lambda: None
        self.outage: SidecarError | None = None
        # Each access to these is one operation, which needs no lock.
        self.waiting: dict[str, None] = {}
        self._failures: dict[str, tuple[SidecarError, float]] = {}
        self._limits = {
            True: RateLimit(MOST, PERIOD_SECONDS),
            False: RateLimit(MOST_UNKNOWN, PERIOD_SECONDS),
        }
        """By whether the source has told of a revision; used by the listener only."""
        self._listener: Listener | None = None
        self._socket: os.stat_result | None = None
        self._told: set[str] = set()
        """The failures of the socket, and a limit, that are already in the log."""

    def ask(self, revision: str, *, is_known: bool) -> SidecarError | None:
        """
        Request a revision; return None while it is pending, or why it cannot be fetched
        now.

        Args:
            is_known: Whether the source has told of it.
        """
        failure, until = self._failures.get(revision, (None, 0.0))
        if failure and time.monotonic() < until:
            return failure
        if self.outage:
            return self.outage
        if revision in self.waiting:
            return None
        rate_limit = self._limits[is_known]
        if rate_limit.wait_seconds:
            limit = reasons.failure(
                "request_limit",
                "too many revisions were requested; "
                f"one in {PERIOD_SECONDS:g} s is fetched now",
            )
            if "request_limit" not in self._told:  # once until one may be again
                self._told.add("request_limit")
                _log_unavailable(revision, limit)
            return limit
        rate_limit.use()
        self._told.discard("request_limit")
        self.waiting[revision] = None
        self.wake()
        return None

    def follow(self, store: int, has: OfRevision, knows: OfRevision) -> None:
        """
        Serve the socket in an open store from now on, unless it is served already.

        Args:
            has: Whether a snapshot of a revision exists; called from any thread.
            knows: Whether the source has told of a revision; likewise.
        """
        found = stat_in(NAME, store)
        if found and self._socket and os.path.samestat(found, self._socket):
            return  # the consumers of that store find it
        self.close()
        try:
            remove_tree(NAME, store)
            # The real path may be longer than the 107 bytes that a socket address can
            # hold.
            listening = socket.create_server(
                f"/proc/self/fd/{store}/{NAME}", family=socket.AF_UNIX
            )
            # Connecting needs write permission; any uid that sees the volume may
            # request.
            os.chmod(NAME, 0o666, dir_fd=store)  # noqa: S103
            self._listener = Listener(listening, partial(self._answer, has, knows))
            self._listener.start()
            self._socket = stat_in(NAME, store)
            self._told.clear()
        except (OSError, RuntimeError) as error:  # each cycle tries again
            said = getattr(error, "strerror", None) or str(error)
            if said not in self._told:
                log.warning(
                    "ask_socket_unavailable",
                    error=said,
                    advice="Consumers get only the versions that are kept on the volume.",
                )
            self._told.add(said)

    def _answer(self, has: OfRevision, knows: OfRevision, path: str) -> Answer:
        question = _QUESTION.fullmatch(path)
        if question is None:
            return _say(404, error="request /revisions/ID with a full ID")
        if has(name := question[1]):
            return _say(200, name=name)
        failure = self.ask(name, is_known=knows(name))
        if failure is None:
            return _say(202, state="on its way")
        status = 404 if failure.reason in GONE else 503
        return _say(status, reason=failure.reason, error=failure.message)

    def close(self) -> None:
        """
        Close the socket; snapshots that were requested stay.
        """
        if self._listener:
            self._listener.close()
        self._listener = self._socket = None

    @contextmanager
    def answering(self, revision: str) -> Iterator[None]:
        """
        Fetch a revision in this context: a failure becomes the answer to the consumer,
        and is logged unless it was the last one, too.
        """
        before, _ = self._failures.pop(revision, (None, 0.0))
        # Of a cycle that is abandoned: the next one would start with this revision, and
        # time out.
        failure: SidecarError | None = SidecarError(
            "cycle_timeout", "the cycle timed out while it fetched this revision"
        )
        try:
            yield
            failure = None
        except SidecarError as error:
            failure = error
            if before is None or before.reason != error.reason:
                _log_unavailable(revision, error)
        finally:
            if failure:
                if len(self._failures) >= MOST:
                    del self._failures[next(iter(self._failures))]
                self._failures[revision] = failure, time.monotonic() + FAILED_SECONDS
            self.waiting.pop(revision, None)
            self._results("error" if failure else "success").inc()


def _log_unavailable(revision: str, error: SidecarError) -> None:
    log.warning(
        "requested_revision_unavailable", revision=revision, **error.log_fields()
    )


def _say(status: int, **facts: str) -> Answer:
    return Answer(HTTPStatus(status), f"{json_text(facts)}\n".encode())
