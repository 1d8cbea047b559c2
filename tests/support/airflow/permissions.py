"""
The content of a metadata database's permission tables, and edits as users make them.
"""

from contextlib import suppress

import psycopg2
import pymysql

from tests.support.airflow.databases import Database, Row

Contents = dict[str, list[Row]]

# Errors of a statement when a sidecar changes the same rows first.
_OUTRUN = (psycopg2.IntegrityError, pymysql.IntegrityError)

_PERMISSIONS = """
    FROM ab_permission_view pv
    LEFT JOIN ab_permission p ON p.id = pv.permission_id
    LEFT JOIN ab_view_menu v ON v.id = pv.view_menu_id"""
_GRANTS = """
    FROM ab_permission_view_role g
    LEFT JOIN ab_role r ON r.id = g.role_id
    LEFT JOIN ab_permission_view pv ON pv.id = g.permission_view_id
    LEFT JOIN ab_permission p ON p.id = pv.permission_id
    LEFT JOIN ab_view_menu v ON v.id = pv.view_menu_id"""
_CONTENTS = {
    "roles": "SELECT name FROM ab_role",
    "actions": "SELECT name FROM ab_permission",
    "resources": "SELECT name FROM ab_view_menu",
    "permissions": f"SELECT p.name, v.name {_PERMISSIONS}",
    "grants": f"SELECT r.name, p.name, v.name {_GRANTS}",
}


def contents(database: Database) -> Contents:
    """
    Return the sorted rows of the permission tables without ids, but with duplicates and
    NULLs.
    """
    return {
        name: sorted(database.query(sql), key=lambda row: tuple(map(str, row)))
        for name, sql in _CONTENTS.items()
    }


def difference(ours: Contents, theirs: Contents) -> list[str]:
    """
    Return the rows that our result lacks or has in excess; empty if the results are
    equal.
    """
    found = []
    for name, rows in theirs.items():
        too_much = list(ours[name])
        for row in rows:
            if row in too_much:
                too_much.remove(row)
            else:
                found.append(f"{name}: missing {row}")
        found += [f"{name}: too much {row}" for row in too_much]
    return found


def grants_on(database: Database, resource: str) -> set[tuple[str, str]]:
    """
    Return the grants on a resource: pairs of role and action.
    """
    return {
        (role, action)
        for role, action, name in database.query(_CONTENTS["grants"])
        if name == resource
    }


def null_rows(database: Database) -> int:
    """
    Count permissions without action or resource, which two concurrent runs of Airflow
    leave.
    """
    (row,) = database.query(
        "SELECT COUNT(*) FROM ab_permission_view"
        " WHERE permission_id IS NULL OR view_menu_id IS NULL"
    )
    return int(row[0])


def new_id(database: Database, table: str) -> int:
    """
    Return an unused id of a table, as Airflow itself would choose it.
    """
    sql = f"SELECT nextval('{table}_id_seq')"
    if not database.url.startswith("postgresql"):
        sql = f"SELECT COALESCE(MAX(id), 0) + 1 FROM {table}"
    ((number,),) = database.query(sql)
    return int(number)


def add_role(database: Database, name: str) -> None:
    """
    Create a role, as the web UI does.
    """
    database.query(
        "INSERT INTO ab_role (id, name) VALUES (%s, %s)",
        (new_id(database, "ab_role"), name),
    )


def add_user(database: Database, name: str, password_hash: str) -> None:
    """
    Create a user without a role.

    Args:
        password_hash: A hash in Werkzeug's format.
    """
    database.query(
        "INSERT INTO ab_user (id, first_name, last_name, username, password, active, email)"
        " VALUES (%s, %s, %s, %s, %s, TRUE, %s)",
        (
            new_id(database, "ab_user"),
            name,
            name,
            name,
            password_hash,
            f"{name}@example.com",
        ),
    )


def add_member(database: Database, name: str, role: str) -> None:
    """
    Assign a role to a user.
    """
    database.query(
        "INSERT INTO ab_user_role (id, user_id, role_id) VALUES (%s,"
        " (SELECT id FROM ab_user WHERE username = %s), (SELECT id FROM ab_role WHERE name = %s))",
        (new_id(database, "ab_user_role"), name, role),
    )


def permission_id(database: Database, action: str, resource: str) -> int:
    """
    Return the id of an existing permission.
    """
    ((found,),) = database.query(
        f"SELECT pv.id {_PERMISSIONS} WHERE p.name = %s AND v.name = %s",
        (action, resource),
    )
    return int(found)


def grant(database: Database, role: str, action: str, resource: str) -> None:
    """
    Grant a role an existing permission, as the web UI does, unless it has it already.
    """
    ((role_id,),) = database.query("SELECT id FROM ab_role WHERE name = %s", (role,))
    while (role, action) not in grants_on(database, resource):
        with suppress(*_OUTRUN):
            database.query(
                "INSERT INTO ab_permission_view_role (id, permission_view_id, role_id)"
                " VALUES (%s, %s, %s)",
                (
                    new_id(database, "ab_permission_view_role"),
                    permission_id(database, action, resource),
                    role_id,
                ),
            )


def revoke(database: Database, role: str, action: str, resource: str) -> None:
    """
    Revoke a role's permission, as the web UI does.
    """
    database.query(
        "DELETE FROM ab_permission_view_role WHERE permission_view_id = %s"
        " AND role_id = (SELECT id FROM ab_role WHERE name = %s)",
        (permission_id(database, action, resource), role),
    )


def delete_permission(database: Database, action: str, resource: str) -> None:
    """
    Delete a permission with all its grants, even those that a sidecar adds meanwhile.
    """
    found = permission_id(database, action, resource)
    while database.query("SELECT id FROM ab_permission_view WHERE id = %s", (found,)):
        database.query(
            "DELETE FROM ab_permission_view_role WHERE permission_view_id = %s",
            (found,),
        )
        with suppress(*_OUTRUN):
            database.query("DELETE FROM ab_permission_view WHERE id = %s", (found,))
