"""
Matching globs against the paths of DAG files.
"""

import pytest

from sync_perm.roles_file import check_glob, matcher
from tests.support.raising import raised


@pytest.mark.parametrize(
    ("glob", "fits", "not_these"),
    [
        ("team-a/**", {"team-a/x.py", "team-a/b/c/x.py"}, {"team-ab/x.py", "x/team-a/x.py"}),
        ("team-a/*.py", {"team-a/x.py", "team-a/.py"}, {"team-a/b/x.py", "team-a/x.zip"}),
        ("team-?/**", {"team-a/x.py"}, {"team-/x.py", "team-ab/x.py", "team-//x.py"}),
        ("**/etl/*.py", {"etl/x.py", "a/b/etl/x.py"}, {"a/metl/x.py", "etl/a/x.py"}),
        ("**", {"x.py", "a/x.py"}, {""}),
        ("a.b/x+[1].py", {"a.b/x+[1].py"}, {"aXb/x+[1].py", "a.b/x+1.py"}),
        ("pack.zip/**", {"pack.zip/dag.py"}, {"pack.zip"}),
        ("team-a/*.zip/*.py", {"team-a/pack.zip/dag.py"}, {"team-a/dag.py"}),
        ("Team/**", {"Team/x.py"}, {"team/x.py"}),
        ("a/**/b/**", {"a/b/x", "a/c/d/b/e/x"}, {"a/x", "ab/x"}),
    ],
)
def test_a_glob_matches_only_expected_paths(glob: str, fits: set[str], not_these: set[str]) -> None:
    check_glob(glob)

    assert fits == {path for path in fits | not_these if matcher(glob)(path)}


@pytest.mark.parametrize(
    ("glob", "word"),
    [
        ("/opt/dags/**", "DAG folder"),
        ("team-a", "write team-a/**"),
        ("team-a/etl", "write team-a/etl/**"),
        ("pack.zip", "write pack.zip/**"),
        ("team-a/*.zip", "write team-a/*.zip/**"),
        ("team-a/", "empty"),
        ("", "empty"),
        ("a//b/**", "empty"),
        ("../a/**", ".."),
        ("a**", "whole path segment"),
        ("**.py", "whole path segment"),
    ],
)
def test_refuses_a_glob_that_could_never_match(glob: str, word: str) -> None:
    assert word in str(raised(ValueError, check_glob, glob))
