"""
Bytes of a roles file: roles, or mistakes that each have a line of the file.
"""

from hypothesis import given

from sync_perm.roles_file import parse
from tests.support.strangers import damaged

ROLES = b"""\
roles:
  base: {permissions: [can_read on DAGs, menu_access on Jobs]}
  team:
    from: [base, Viewer]
    dags:
      - {id: a, permissions: [can_edit]}
      - {tag: public, permissions: [can_read]}
      - {folder: team-a/**, permissions: [DAGs.can_edit, can_create on DAG Runs]}
"""


@given(data=damaged(ROLES))
def test_a_roles_file_has_roles_or_mistakes_with_lines(data: bytes) -> None:
    document = parse(data)

    lines = data.count(b"\n") + 2
    assert all(1 <= mistake.line <= lines for mistake in document.mistakes)
    assert all(str(mistake) for mistake in document.mistakes)
