"""
Bytes as a stranger may write them: what is valid, damaged at a few places, and rubbish.
"""

from __future__ import annotations

from hypothesis import strategies as st

MOST_BYTES = 4_000


@st.composite
def damaged(draw: st.DrawFn, *valid: bytes) -> bytes:
    """
    Draw one of these contents with up to four edits, or any bytes.

    An edit replaces, removes, repeats or inserts a few bytes, or cuts the rest off.
    """
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    found = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(found)))
        end = min(len(found), start + draw(st.integers(0, 9)))
        middle = draw(
            st.one_of(
                st.just(b""),
                st.binary(max_size=8),
                st.sampled_from([b"\0", b"\n", b'"', b"-1", b"1e999", b"9" * 30]),
                st.just(found[start:end] * draw(st.integers(1, 50))),
                st.just(found),
            )
        )
        rest = b"" if draw(st.integers(0, 9)) == 0 else found[end:]
        found = (found[:start] + middle + rest)[:MOST_BYTES]
    return found
