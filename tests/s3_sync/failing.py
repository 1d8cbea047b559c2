"""An act of s3-sync that must fail."""

from collections.abc import Callable

from sidecar_runtime.errors import SidecarError
from tests.support.raising import raised


def failure(act: Callable[..., object], *arguments: object, **options: object) -> SidecarError:
    """Do what must fail, and return how it did."""
    return raised(SidecarError, act, *arguments, **options)
