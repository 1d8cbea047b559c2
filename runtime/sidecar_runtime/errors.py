"""
Failures that are not bugs: each has an exit code, a machine-readable reason and advice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_SETTINGS = 2
EXIT_GAVE_UP = 3


class SidecarError(Exception):
    """
    A failure that a person can act on.

    Args:
        reason: One word for metrics, logs and status; different for each cause that a
            person would treat differently.
        message: What happened, with the names that matter. Never a secret.
        advice: What to do about it; empty where the message says it all.

    Attributes:
        retry_within_seconds: When it is tried again at the latest, where something of value runs
            out meanwhile; ``None`` leaves it to the backoff.
    """

    exit_code = EXIT_GAVE_UP

    def __init__(self, reason: str, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.advice = advice
        self.retry_within_seconds: float | None = None


class GaveUp(SidecarError):
    """
    The limit of consecutive failures, or the deadline of a one-shot, was reached.
    """


class Problem(NamedTuple):
    """
    One setting that is wrong: its name, the value as given (never a secret), what is allowed.

    `value` is None where nobody reads the variable: it may be that of a password.
    """

    setting: str
    value: str | None
    problem: str

    def __str__(self) -> str:
        value = "" if self.value is None else f"={self.value!r}"
        return f"{self.setting}{value} {self.problem}"


class SettingsError(SidecarError):
    """
    One or more settings are wrong; all of them are listed.

    Args:
        unknown: Variables that may be slips, worth a warning, with what may be meant, or nothing.
    """

    exit_code = EXIT_SETTINGS

    def __init__(self, problems: list[Problem], unknown: Mapping[str, str] | None = None) -> None:
        super().__init__("settings_rejected", "; ".join(map(str, problems)))
        self.problems = problems
        self.unknown = unknown or {}
