"""Errors that a test expects, as values."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import pytest

E = TypeVar("E", bound=BaseException)
P = ParamSpec("P")


def raised(kind: type[E], act: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> E:
    """
    Return the error of this type that a call raises.
    """
    with pytest.raises(kind) as caught:
        act(*args, **kwargs)
    return caught.value
