"""
A secret in a setting or in a file; files are read again at each use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from git_sync_wrapper.login.credential import CredentialError
from git_sync_wrapper.login.secret_repair import Repaired, repair_password
from sidecar_runtime.logs import get_logger

LIMIT_BYTES = 1 << 20

log = get_logger("secrets")


class Cleaner:
    """
    Repairs secrets, and logs each finding once.

    A secret that looks like base64 is used unchanged until it is refused, and then decoded.
    """

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, ...]] = {}
        self._wrapped: set[str] = set()
        self._decoded: set[str] = set()

    def clean(self, setting: str, raw: bytes, repair: Callable[[bytes], Repaired]) -> str:
        """
        Return the repaired secret of a setting.
        """
        repaired = repair(raw)
        findings = (*repaired.repairs, *repaired.doubts)
        if self._said.get(setting, ()) != findings:
            self._said[setting] = findings
            self._decoded.discard(setting)
            for finding in repaired.repairs:
                log.warning("secret_repaired", setting=setting, finding=finding)
            for doubt in repaired.doubts:
                log.warning("secret_doubted", setting=setting, finding=doubt)
        if repaired.inner is None:
            self._wrapped.discard(setting)
            return repaired.text
        self._wrapped.add(setting)
        return repaired.inner if setting in self._decoded else repaired.text

    def password(self, setting: str, raw: bytes) -> str:
        """
        Return a username, password or token that fits into git's protocol.

        Raises:
            CredentialError: It is empty, or contains a line break or NUL.
        """
        text = self.clean(setting, raw, repair_password)
        if not text:
            raise CredentialError(
                "secret_empty", f"{setting} is empty", "Store a value in the Secret that sets it."
            )
        if "\n" in text or "\0" in text:
            what = "has several lines" if "\n" in text else "contains a NUL byte"
            raise CredentialError(
                "secret_malformed",
                f"{setting} {what}",
                "A password or token is one line: check which key of the Secret is mounted.",
            )
        return text

    @property
    def is_decoding(self) -> bool:
        """
        Whether a secret is decoded because it was refused unchanged.
        """
        return bool(self._decoded)

    def refused(self, *settings: str) -> None:
        """
        Decode secrets that look like base64 from now on; the next refusal reverts this.
        """
        for setting in self._wrapped.intersection(settings):
            self._decoded ^= {setting}
            if setting in self._decoded:
                finding = "it was refused unchanged, so it is tried decoded from base64"
                log.warning("secret_repaired", setting=setting, finding=finding)


@dataclass(frozen=True, slots=True)
class Secret:
    """
    One username, password or token.

    Args:
        setting: Its name in errors and the log.
        file: The file that contains it, unless `value` does.
    """

    setting: str
    cleaner: Cleaner = field(repr=False)
    value: str = field(default="", repr=False)
    file: str = ""

    def read(self) -> str:
        """
        Return the repaired secret.

        Raises:
            CredentialError: The file cannot be read, or its content does not fit git's protocol.
        """
        raw = self.value.encode("utf-8", "surrogateescape")
        return self.cleaner.password(
            self.setting, read_file(self.setting, self.file) if self.file else raw
        )

    def refused(self) -> None:
        """
        Switch between the secret as it is and decoded, if it looks like base64.
        """
        self.cleaner.refused(self.setting)


def read_file(setting: str, path: str) -> bytes:
    """
    Read the file of a secret.

    Raises:
        CredentialError: It cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(LIMIT_BYTES)
    except OSError as error:
        raise CredentialError(
            "secret_unreadable",
            f"{setting}: cannot read {path}: {error.strerror}",
            "Check the mount of the Secret and the name of its key, and let the group read it.",
        ) from None
