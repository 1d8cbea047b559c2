"""
Answers git's credential helper over a Unix socket.

One connection at a time: git asks one question after the other, and each is short.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from git_sync_wrapper.login.credential import Credential, Provider, Wanted
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.logs import get_logger

# git closes its end once it has asked; who does not is not git.
QUESTION_SECONDS = 5.0
LIMIT_BYTES = 1 << 20
RETRY_SECONDS = 1.0

log = get_logger("credentials")


class Keys(Provider, Protocol):
    """
    What the server asks, and tells of a login that git was given elsewhere.
    """

    def store(self, wanted: Wanted, credential: Credential) -> None: ...


class CredentialServer:
    """
    Listens from `start` to `close`, in a thread of its own.

    Args:
        path: Of the socket; its folder keeps others out.
        failed: Told each error that git had to be told.
        question_seconds: How long a client may take to ask; the next one waits meanwhile.
        retry_seconds: Until a client is asked in again, where none could be.
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
        self._fence = Fence()  # of the question that is under way; it collects callbacks
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def start(self) -> None:
        """
        Begin to answer.

        Raises:
            OSError: The socket cannot be made.
        """
        self._listener.bind(self._path)
        self._listener.listen(64)
        threading.Thread(target=self._serve, name="credentials", daemon=True).start()

    def close(self) -> None:
        """
        End what is under way, a child that asks AWS too, and listen no more.
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
            except OSError as error:  # no descriptor or memory is left, which passes
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
            return b"quit=1\n\0git-sync-wrapper: a bug, see its log\n"
        if found is None:
            return b""
        lines = f"username={found.username}\npassword={found.password}\n"
        return lines.encode("utf-8", "surrogateescape")


def _read(connection: socket.socket) -> bytes:
    question = b""
    while chunk := connection.recv(65536):
        question += chunk
        if len(question) > LIMIT_BYTES:
            raise OSError("the question does not end")
    return question
