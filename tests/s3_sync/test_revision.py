"""The revision as a digest of paths, contents and executable bits."""

from collections.abc import Iterator, Mapping
from itertools import count, permutations

from hypothesis import given
from hypothesis import strategies as st

from s3_sync.digest import sha256_of
from s3_sync.revision import ends_chunk, revision_of

# Content and executable bit, by path.
Tree = Mapping[str, tuple[bytes, bool]]

LAST = next(name for name in map(str, count()) if ends_chunk(name))
# Names that contain parts of the digested text.
NAMES = ["a", "b", " ", "-", " - ", "x", "\n", "0", "é", "e\u0301", LAST]
CONTENTS = [b"", b"a", b"b", b"ab", b" ", b"\0", b"\n", b"0"]
trees = st.dictionaries(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("".join),
    st.tuples(st.sampled_from(CONTENTS), st.booleans()),
    min_size=1,
    max_size=4,
)


def neighbors(tree: Tree) -> Iterator[Tree]:
    """Yield trees with one small difference, whose digested text is nearly the same."""
    for path, (body, is_executable) in tree.items():
        rest = {other: file for other, file in tree.items() if other != path}
        yield rest
        yield {**tree, path: (body, not is_executable)}
        for other in NAMES:
            yield {**rest, other: (body, is_executable)}
            yield {**rest, path + other: (body, is_executable)}
            yield {**tree, path + other: (b"", False)}
            yield {**tree, path: (body + other.encode(), is_executable)}
        if body.isascii():
            # Move a byte between path and content.
            yield {**rest, path + body[:1].decode(): (body[1:], is_executable)}
            yield {**rest, path[:-1]: (path[-1:].encode() + body, is_executable)}
    for one, other in permutations(tree, 2):
        rest = {path: file for path, file in tree.items() if path not in (one, other)}
        yield {**tree, one: tree[other], other: tree[one]}
        yield {**rest, one: (tree[one][0] + tree[other][0], tree[one][1])}
        # Use a name that contains the digested text of another file.
        for mark in "x-":
            for between in ("", "\n"):
                entry = f"{between}{sha256_of(tree[other][0])} {mark} {other}"
                yield {**rest, one + entry: tree[one]}


def is_possible(tree: Tree) -> bool:
    return bool(tree) and not any("\0" in path or not path for path in tree)


def revision(tree: Tree) -> str:
    return revision_of((path, sha256_of(tree[path][0]), tree[path][1]) for path in sorted(tree))


@given(trees)
def test_different_contents_never_share_a_revision(tree: Tree) -> None:
    found = [one for one in (tree, *neighbors(tree)) if is_possible(one)]

    contents = {frozenset(one.items()) for one in found}

    assert len(contents) == len({revision(one) for one in found})
