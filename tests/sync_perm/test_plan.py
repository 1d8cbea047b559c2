"""
Which pass fixes a difference.
"""

import pytest

from sync_perm.difference import Item
from sync_perm.plan import Pass, make_plan

ROLE = Item("role_grant", "", ("team", "can_read", "Website"))
DAG_B = Item("dag_grant", "b", ("team", "can_read", "DAG:b"))
FILE_DAG = Item("file_dag_grant", "c", ("team", "can_read", "DAG:c"))
FILE_ROLE = Item("file_role", "", ("team",))
DAG_A = Item("dag_permission", "a", ("can_read", "DAG:a"))


@pytest.mark.parametrize(
    ("items", "every_dag", "when", "expected"),
    [
        ([], "ba", "", None),
        ([], "ba", "undefined", Pass("start", True, ())),
        ([DAG_B, DAG_A], "ba", "", Pass("dags", False, ("a", "b"))),
        ([ROLE], "ba", "", Pass("roles", True, ())),
        ([ROLE, DAG_B], "ba", "", Pass("roles", True, ("b",))),
        ([DAG_A], "ba", "undefined", Pass("start", True, ("a",))),
        ([], "ba", "asked", Pass("asked", True, ("a", "b"))),
        ([ROLE], "", "asked", Pass("asked", True, ())),
        ([FILE_ROLE, FILE_DAG], "", "", Pass("file", False, (), (FILE_DAG, FILE_ROLE))),
        ([FILE_ROLE, DAG_A], "", "", Pass("dags", False, ("a",), (FILE_ROLE,))),
        ([FILE_ROLE, ROLE], "", "", Pass("roles", True, (), (FILE_ROLE,))),
        ([FILE_DAG], "ab", "asked", Pass("asked", True, ("a", "b"), (FILE_DAG,))),
    ],
)
def test_plans_a_pass_for_the_differences_or_for_everything_on_request(
    items: list[Item], every_dag: str, when: str, expected: Pass | None
) -> None:
    is_asked, is_defined = when == "asked", when != "undefined"

    assert expected == make_plan(
        frozenset(items), every_dag=every_dag, is_asked=is_asked, is_defined=is_defined
    )


def test_the_dags_of_a_pass_include_those_of_the_file() -> None:
    assert {"a", "c"} == Pass("dags", False, ("a",), (FILE_DAG, FILE_ROLE)).every_dag
