"""
The file as it is now, read again when it has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.logs import get_logger
from sync_perm.difference import Resource
from sync_perm.role_file.document import WHOLE, Document, Mistake, Where

# What a ConfigMap can hold.
MAX_BYTES = 1 << 20
NAMED_MISTAKES = 5
ADVICE = "Correct the file; until then nothing of it is written, and what was written stays."
RENAME = "Rename the role, or convert the database to UTF-8 (utf8mb4)."

log = get_logger("role_file")


class RoleFile:
    """
    One file; used by one cycle at a time.

    Attributes:
        document: What it says; None where it cannot be read.
        revision: Changes with its content; empty where it cannot be read.
        problem: Why it does not count; None where it does.
        mistakes: All that is wrong; that it cannot be read is one.
    """

    def __init__(self, path: str, kinds: Mapping[str, Resource]) -> None:
        self.path = path
        self._kinds = kinds
        self.document: Document | None = None
        self.revision = ""
        self.problem: SidecarError | None = None
        self.mistakes: tuple[Mistake, ...] = ()
        self._said: object = None

    def refresh(self) -> None:
        """
        Read the file; what is wrong with it is kept, never raised.
        """
        try:
            with open(self.path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            self._give_up(error.strerror or type(error).__name__)
            return
        if len(data) > MAX_BYTES:
            self._give_up(f"is larger than {MAX_BYTES:,} bytes")
            return
        revision = hashlib.sha256(data).hexdigest()[:12]
        if revision != self.revision:
            from sync_perm.role_file.reading import parse  # noqa: PLC0415 - YAML, which few need

            self.document, self.revision = parse(data, self._kinds), revision

    def judge(self, mistakes: tuple[Mistake, ...], unfit: frozenset[str] = frozenset()) -> None:
        """
        Take all that is wrong with what was read; nothing, and it counts.

        Args:
            unfit: Names that the database cannot hold; the other roles count all the same.
        """
        if not mistakes and self.document:
            text = (
                "the database cannot hold this name in its character set; the other roles are kept"
            )
            roles = (role for name, role in self.document.roles.items() if name in unfit)
            if refused := tuple(sorted(Mistake(role.where, text) for role in roles)):
                self._take(refused, SidecarError("role_name_unfit", self._named(refused), RENAME))
                return
        problem = SidecarError("roles_file_invalid", self._named(mistakes), ADVICE)
        self._take(mistakes, problem if mistakes else None)

    def _named(self, mistakes: tuple[Mistake, ...]) -> str:
        texts = [f"{self.path}:{mistake}" for mistake in mistakes[:NAMED_MISTAKES]]
        if len(mistakes) > NAMED_MISTAKES:
            texts.append(f"and {len(mistakes) - NAMED_MISTAKES} more")
        return "; ".join(texts)

    def _give_up(self, why: str) -> None:
        self.document, self.revision = None, ""
        problem = SidecarError("roles_file_unreadable", f"{self.path}: {why}", ADVICE)
        self._take((Mistake(Where(0, WHOLE), why),), problem)

    def _take(self, mistakes: tuple[Mistake, ...], problem: SidecarError | None) -> None:
        self.mistakes, self.problem = mistakes, problem
        said, self._said = self._said, (self.revision, mistakes)
        if said == self._said:
            return
        for one in mistakes:
            where = {"line": one.where.line, "key": one.where.key}
            log.warning("roles_file_refused", file=self.path, **where, error=one.problem)
        if self.document and not mistakes:
            roles = len(self.document.roles)
            log.info("roles_file_taken", file=self.path, revision=self.revision, roles=roles)
