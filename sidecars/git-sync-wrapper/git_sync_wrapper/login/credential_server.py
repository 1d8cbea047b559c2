"""
Answers git's credential helper over a Unix socket.

One connection at a time: git asks its questions one after the other, and each is short.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from git_sync_wrapper.login.credential import Credential, Provider, Wanted
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.logs import get_logger

# git closes its end of the connection after its question.
QUESTION_SECONDS = 5.0
LIMIT_BYTES = 1 << 20
RETRY_SECONDS = 1.0
# The places for its folder; a container with a read-only root and nothing mounted on /tmp still has
# /dev/shm.
PARENTS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
# The path of a socket has at most 107 bytes: unix(7).
LONGEST_PARENT_BYTES = 64

log = get_logger("credentials")


def parent_folder(parents: Sequence[str] = PARENTS) -> str:
    """
    Return a writable folder for the private folder of a socket: TMPDIR, unless it is too long for
    the socket's path, or one of `parents`.
    """
    for path in (os.environ.get("TMPDIR", ""), *parents):
        if not path or len(os.fsencode(path)) > LONGEST_PARENT_BYTES:
            continue
        if os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK):
            return path
    return parents[0]


class Keys(Provider, Protocol):
    """
    The source of credentials; it also stores logins that git received elsewhere.
    """

    def store(self, wanted: Wanted, credential: Credential) -> None: ...


class CredentialServer:
    """
    Listens from `start` to `close`, in its own thread.

    Args:
        path: The path of the socket; only we can enter its folder.
        failed: Called with each error that is returned to git.
        question_seconds: How long a client may take to ask; other clients wait until then.
        retry_seconds: The pause after a connection could not be accepted.
    """

    def __init__(
        self,
        path: str,
        keys: Keys,
        failed: Callable[[SidecarError], object],
        question_seconds: float = QUESTION_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._path = path
        self._keys = keys
        self._failed = failed
        self._question_seconds = question_seconds
        self._retry_seconds = retry_seconds
        self._closed = threading.Event()
        self._fence = Fence()  # of the current question; it collects callbacks
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def start(self) -> None:
        """
        Start to answer.

        Raises:
            OSError: The socket cannot be created.
        """
        self._listener.bind(self._path)
        self._listener.listen(64)
        threading.Thread(target=self._serve, name="credentials", daemon=True).start()

    def close(self) -> None:
        """
        Stop listening, and end the current question, including a child that asks AWS.
        """
        self._closed.set()
        self._fence.revoke()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError as error:  # no descriptor or memory left, which is temporary
                if not self._closed.is_set():
                    log.error("credential_server_failed", error=error.strerror)
                    self._closed.wait(self._retry_seconds)
                continue
            with connection, suppress(OSError):
                connection.settimeout(self._question_seconds)
                connection.sendall(self._answer(_read(connection)))

    def _answer(self, question: bytes) -> bytes:
        action, _, text = question.decode("utf-8", "surrogateescape").partition("\n")
        fields = dict(line.partition("=")[::2] for line in text.split("\n") if "=" in line)
        wanted = Wanted(*(fields.get(name, "") for name in ("protocol", "host", "path")))
        match action:
            case "get":
                return self._get(wanted)
            case "store":
                given = Credential(fields.get("username", ""), fields.get("password", ""))
                self._keys.store(wanted, given)
            case "erase":
                self._keys.refused(wanted)
        return b""

    def _get(self, wanted: Wanted) -> bytes:
        self._fence = Fence()
        if self._closed.is_set():
            self._fence.revoke()
        try:
            found = self._keys.credential(wanted, self._fence)
        except CycleAbandoned:
            return b"quit=1\n"
        except SidecarError as error:
            self._failed(error)
            said = f"git-sync-wrapper: {error.reason}: {error.message}\n"
            return f"quit=1\n\0{said}".encode("utf-8", "replace")
        except Exception:
            log.exception("credential_crashed")
            return b"quit=1\n\0git-sync-wrapper: a bug: its log has the traceback\n"
        if found is None:
            return b""
        lines = f"username={found.username}\npassword={found.password}\n"
        return lines.encode("utf-8", "surrogateescape")


def _read(connection: socket.socket) -> bytes:
    question = b""
    while chunk := connection.recv(65536):
        question += chunk
        if len(question) > LIMIT_BYTES:
            raise OSError("the question is too long")
    return question
