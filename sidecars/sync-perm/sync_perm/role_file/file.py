"""
The current roles file, parsed again when it has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.logs import get_logger
from sync_perm.difference import Resource
from sync_perm.role_file.document import WHOLE, Document, Mistake, Where

# The size limit of a ConfigMap.
MAX_BYTES = 1 << 20
NAMED_MISTAKES = 5
ADVICE = "Correct the file. Until then it is ignored, and rows written earlier stay."
RENAME = "Rename the role, or convert the database to UTF-8 (utf8mb4)."

log = get_logger("role_file")


class RoleFile:
    """
    The roles file; used by one cycle at a time.

    Attributes:
        document: Its content; None if it cannot be read.
        revision: A digest of its content; empty if it cannot be read.
        problem: What is wrong with it; None if it is valid.
        mistakes: All mistakes; an unreadable file has one.
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
        Read the file; record its mistakes instead of raising them.
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
            from sync_perm.role_file.reading import parse  # noqa: PLC0415 - loads YAML only if needed

            self.document, self.revision = parse(data, self._kinds), revision

    def judge(self, mistakes: tuple[Mistake, ...], unfit: frozenset[str] = frozenset()) -> None:
        """
        Record the mistakes of the file that was read; without any, it is valid.

        Args:
            unfit: Names that the database cannot store; the remaining roles still count.
        """
        if not mistakes and self.document:
            text = (
                "the database's character set cannot store this name; the other roles still apply"
            )
            roles = (role for name, role in self.document.roles.items() if name in unfit)
            if refused := tuple(sorted(Mistake(role.where, text) for role in roles)):
                named = self._named(refused)
                self._take(refused, SidecarError("role_name_unsupported", named, RENAME))
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
            log.info("roles_file_accepted", file=self.path, revision=self.revision, roles=roles)
