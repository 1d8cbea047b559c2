"""Calls that must fail."""

from collections.abc import Callable

from sidecar_runtime.errors import SidecarError
from tests.support.raising import raised


class Killed(Exception):
    """Stands for the end of the process."""


def failure(act: Callable[..., object], *arguments: object, **options: object) -> SidecarError:
    """Call a function that must fail, and return its error."""
    return raised(SidecarError, act, *arguments, **options)
