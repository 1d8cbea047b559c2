"""Expected exceptions, as values."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import pytest

E = TypeVar("E", bound=BaseException)
P = ParamSpec("P")


def raised(
    kind: type[E], act: Callable[P, object], *args: P.args, **kwargs: P.kwargs
) -> E:
    """
    Call a function, and return the exception of this type that it must raise.
    """
    with pytest.raises(kind) as caught:
        act(*args, **kwargs)
    return caught.value
