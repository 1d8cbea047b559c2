"""
Airflow's tables: whether anything changed (the fingerprint), the rows by name, and
whether the account may write them.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from sys import intern
from typing import Any, NamedTuple

from sidecar_runtime.errors import SidecarError
from sync_perm.compare import (
    ADMIN,
    DEFAULT_ROLES,
    Access,
    Difference,
    Failure,
    Permission,
    Place,
    Row,
    Tables,
    compare,
    find_unasked,
    general,
    unfit_id,
    without_dags,
)
from sync_perm.database import Database
from sync_perm.reasons import failure
from sync_perm.roles_file import NOTHING, Defined, RoleFile

PERMISSIONS = """
SELECT p.id, a.name, r.name FROM {in}ab_permission_view p
LEFT JOIN {in}ab_permission a ON a.id = p.permission_id
LEFT JOIN {in}ab_view_menu r ON r.id = p.view_menu_id"""
# From Airflow 3 on a DAG may have several rows, the newest of which counts: it is the
# last here.
VERSIONS = """
SELECT s.dag_id, s.dag_hash FROM {in}serialized_dag s
JOIN {in}dag_version v ON v.id = s.dag_version_id ORDER BY v.version_number"""
HASHES = "SELECT dag_id, dag_hash FROM {in}serialized_dag"
# The serialized form of a DAG is as large as its author makes it, so a large one is not
# read; and without the word, a DAG has no access control.
SERIALIZED = """
SELECT dag_id, dag_hash, CASE WHEN size <= :most THEN words END,
CASE WHEN size <= :most THEN data_compressed END, size FROM (
SELECT s.*, COALESCE(OCTET_LENGTH(data_compressed), OCTET_LENGTH(words), 0) AS size FROM (
SELECT dag_id, dag_hash, data_compressed,
CASE WHEN CAST(data AS {text}) LIKE '%access_control"%' THEN CAST(data AS {text}) END AS words
FROM {in}serialized_dag WHERE dag_id IN :dag_ids AND dag_hash IN :hashes) s) t"""
# How many DAGs are read at a time: most have kilobytes.
DAGS = 10
# Of one DAG. Parsed, it is up to 20 times as large.
MOST_BYTES = 4 << 20
# Of its access control, which is kept as long as the DAG is there, and quoted.
MOST_OF_ACCESS = 64 << 10


# What passes read of each table; the fingerprint covers it.
COLUMNS = {
    "ab_role": "id, name",
    "ab_permission": "id, name",
    "ab_view_menu": "id, name",
    "ab_permission_view": "id, permission_id, view_menu_id",
    "ab_permission_view_role": "id, permission_view_id, role_id",
}
# last_updated changes exactly when a DAG is serialized again.
DAG_COLUMNS = {"serialized_dag": "dag_id, last_updated"}


# Nothing, of each table.
WRITES = (
    "UPDATE TABLE SET id = id WHERE 1 = 0",
    "INSERT INTO TABLE SELECT * FROM TABLE WHERE 1 = 0",
    "DELETE FROM TABLE WHERE 1 = 0",
)


def try_write(database: Database) -> None:
    """
    Check that the account can write each table; otherwise Airflow would log an error
    per row and succeed.

    The server's settings do not show it: some accounts can write although it is
    ``read_only``.

    Raises:
        SidecarError: A query or the connection failed, or the account cannot write.
    """
    try:
        for table in COLUMNS:
            for query in WRITES:
                database.rows(query.replace("TABLE", f"{{in}}{table}"))
            # of which nextval needs one; a sequence with another name is null
            query = f"""
SELECT has_sequence_privilege(to_regclass('{{in}}{table}_id_seq'), 'USAGE, UPDATE')"""
            if not database.is_mysql and (False,) in database.rows(query):
                raise failure(
                    "database_read_only",
                    f"{database.address}: permission denied for sequence {table}_id_seq",
                )
    except SidecarError as error:
        if error.reason != "database_read_denied":  # reading has worked until now
            raise
        raise failure("database_read_only", error.message) from None


class Look(NamedTuple):
    """
    The tables at one time: the rows that only Airflow can judge, and what differs of
    the others.

    Args:
        is_written: Whether Airflow has written permissions that it defines; else the
            roles file cannot be compared yet.
    """

    tables: Tables
    general: frozenset[Row]
    difference: Difference
    is_written: bool


@dataclass(slots=True, kw_only=True)
class Reader:
    """
    Reads and compares the tables, and caches the access control of unchanged DAGs.

    Args:
        include_dags: Whether DAG permissions should be as Airflow would leave them.
        file: The roles file; None without one.
        has_versions: Whether this is Airflow 3.
        reads_dags: Whether to read DAGs, also if nothing of them is to be synced.
        is_targeted: Whether Airflow syncs single DAGs, instead of all or none.
        known: DAG → hash, and the access control with that hash.
    """

    include_dags: bool
    file: RoleFile | None
    has_versions: bool
    reads_dags: bool = True
    is_targeted: bool = True
    known: dict[str, tuple[str, Access]] = field(default_factory=dict)

    @property
    def _path(self) -> str:
        return "relative_fileloc" if self.has_versions else "fileloc"

    def fingerprint(self, database: Database) -> str:
        """
        Return a digest of what passes read: one query, 5 ms at 1,000 DAGs on
        PostgreSQL.

        Airflow writes tags, owners and paths without serializing the DAG again.

        Raises:
            SidecarError: The database failed, or is not migrated.
        """
        number = "CRC32" if database.is_mysql else "HASHTEXT"
        columns = COLUMNS | (DAG_COLUMNS if self.reads_dags else {})
        if self.file:
            columns |= {
                "dag_tag": "dag_id, name",
                "dag": f"dag_id, owners, {self._path}",
            }
        each = (
            f"(SELECT COUNT(*), SUM({number}(CONCAT_WS(',', {names}))) FROM {{in}}{table}) {table}"
            for table, names in columns.items()
        )
        rows = database.rows(f"SELECT * FROM {', '.join(each)}")
        return hashlib.sha256(
            repr([*rows, self.file.revision if self.file else ""]).encode()
        ).hexdigest()[:12]

    def look(self, database: Database, defined: Defined | None) -> Look:
        """
        Read the tables and compare: 20 ms of CPU at 1,000 DAGs.

        Args:
            defined: What Airflow defines for its roles; None if that is not known yet.

        Raises:
            SidecarError: The database failed.
        """
        tables = self.read(database)
        own = {ADMIN, *(defined or DEFAULT_ROLES)}
        roles = own
        more = NOTHING._replace(asked={} if self.reads_dags else None)
        is_written = not defined or any(
            map(tables.permissions.intersection, defined.values())
        )
        if self.file:
            more = self.file.compare(tables, defined if is_written else None)
            if defined and not self.file.problem:
                roles = own | self.file.document.roles.keys()
        # A DAG may name any role that is there, or that the next pass creates before
        # its grants.
        grants = {
            **dict.fromkeys(roles, frozenset[Permission]()),
            **tables.grants,
        }
        dags = {
            dag_id: access
            for dag_id, access in tables.dags.items()
            if self.include_dags or isinstance(access, Failure)
        }
        found = compare(replace(tables, dags=dags, grants=grants))
        if not self.is_targeted:
            found = without_dags(found)
        # With mistakes in the file nobody knows what it asks for.
        if more.asked is not None:
            ruled = own if self.file else tables.grants
            found = found._replace(unasked=[*find_unasked(tables, more.asked, ruled)])
        found = found._replace(
            items=found.items | more.items,
            wanted=found.wanted + more.wanted,
            notes=more.notes,
        )
        return Look(tables, general(tables), found, is_written)

    def read(self, database: Database) -> Tables:
        """
        Read everything.
        """
        access = self._read_dags(database) if self.reads_dags else {}
        if self.reads_dags and database.is_mysql:
            access |= _find_taken(database)
        roles: dict[int, str] = dict(database.rows("SELECT id, name FROM {in}ab_role"))
        rows = database.rows(PERMISSIONS)
        pairs = {n: (intern(a), intern(r)) for n, a, r in rows if None not in (a, r)}
        resources = database.rows("SELECT name FROM {in}ab_view_menu")
        grants: dict[str, set[Permission]] = {role: set() for role in roles.values()}
        for number, holder in database.rows(
            "SELECT permission_view_id, role_id FROM {in}ab_permission_view_role"
        ):
            if number in pairs and holder in roles:
                grants[roles[holder]].add(pairs[number])
        named = {
            name for one in access.values() if isinstance(one, dict) for name in one
        }
        named |= set(self.file.document.roles if self.file else ())
        unknown = named.difference(grants) if database.is_mysql else ()
        return Tables(
            permissions=frozenset(pairs.values()),
            grants=grants,
            broken=len(rows) - len(pairs),
            dags=access,
            resources=frozenset(name for (name,) in resources),
            aliases=_find_aliases(database, unknown),
            places=self._read_places(database) if self.file else {},
        )

    def _read_places(self, database: Database) -> dict[str, Place]:
        """
        Read the places of the DAGs: 2 ms of CPU at 1,000 DAGs.
        """
        tags: dict[str, set[str]] = {}
        for dag_id, tag in database.rows("SELECT dag_id, name FROM {in}dag_tag"):
            tags.setdefault(dag_id, set()).add(tag)
        root = "NULL" if self.has_versions else "processor_subdir"
        query = f"SELECT dag_id, owners, {self._path}, {root} FROM {{in}}dag"
        found = {}
        for dag_id, owners, path, folder in database.rows(query):
            # On Airflow 2 it is absolute, below the folder of its parser.
            top = "" if self.has_versions else f"{folder}/".replace("//", "/")
            below = path.removeprefix(top) if path and path.startswith(top) else ""
            names = frozenset(owner.strip() for owner in (owners or "").split(","))
            found[dag_id] = Place(below, names, frozenset(tags.get(dag_id, ())))
        return found

    def _read_dags(self, database: Database) -> dict[str, Access]:
        """
        Return the access control of each DAG; fetch what has changed since the last
        time.
        """
        newest: dict[str, str] = dict(
            database.rows(VERSIONS if self.has_versions else HASHES)
        )
        self.known = known = {
            dag_id: found
            for dag_id, found in self.known.items()
            if newest.get(dag_id) == found[0]
        }
        unknown = sorted(newest.keys() - known.keys())
        for start in range(0, len(unknown), DAGS):
            dag_ids = tuple(unknown[start : start + DAGS])
            rows = database.rows(
                SERIALIZED,
                dag_ids=dag_ids,
                hashes=tuple(newest[dag_id] for dag_id in dag_ids),
                most=MOST_BYTES,
            )
            # Without a row, the DAG changes meanwhile, and is left to the next look.
            for dag_id, digest, *row in rows:
                known[dag_id] = digest, unfit_id(dag_id) or read_access_control(*row)
        return {dag_id: access for dag_id, (_, access) in known.items()}


def read_access_control(
    data: str | None, compressed: bytes | memoryview | None, size: int = 0
) -> Access:
    """
    Return the access control in a row of ``serialized_dag``; None if the DAG has none.

    Most DAGs have none, and are not parsed.

    Args:
        size: The bytes of what was not read if they are more than :data:`MOST_BYTES`.
            Compressed, a few kilobytes may stand for gigabytes.
    """
    try:
        unpacked = zlib.decompressobj().decompress(compressed or b"", MOST_BYTES + 1)
        if max(size, len(unpacked)) > MOST_BYTES:
            return Failure(
                "dag_too_large",
                "has more than 4 MiB in serialized_dag",
            )
        text = data or unpacked.decode()
        if 'access_control"' not in text:
            return None
        dag = json.loads(text)["dag"]
        # Airflow 2, Airflow 3
        found = dag.get("_access_control", dag.get("access_control"))
        if len(json.dumps(found)) > MOST_OF_ACCESS:
            return Failure("dag_too_large", "its access_control has more than 64 KiB")
        return None if found is None else dict(_decode(found))
    except Exception as error:  # noqa: BLE001 - whatever its author made of it
        return Failure(
            "access_control_invalid",
            "its serialized access_control has an unknown form: "
            f"{type(error).__name__}: {error}",
        )


def _decode(value: Any) -> Any:
    """
    Undo Airflow's encoding: a mapping or set is ``{"__type": …, "__var": …}``.
    """
    match value:
        case {"__type": "dict", "__var": dict(inner)}:
            return {key: _decode(item) for key, item in inner.items()}
        case {"__type": "set" | "frozenset", "__var": list(inner)}:
            return set(inner)
        case {"__type": "tuple", "__var": list(inner)}:
            return tuple(inner)
        case {"__type": kind}:
            raise ValueError(f"a {kind}")
        case dict():
            return {key: _decode(item) for key, item in value.items()}
    return value


def _find_aliases(database: Database, names: Iterable[str]) -> dict[str, str]:
    """
    Return the names that MySQL's collation equates with these unknown ones, as Airflow
    finds them.
    """
    query = "SELECT MIN(name) FROM {in}ab_role WHERE name = :name HAVING COUNT(*) > 0"
    found: dict[str, str] = {}
    for name in names:
        try:
            for (alias,) in database.rows(query, name=name):
                found[name] = alias
        except SidecarError as error:  # its character set may lack a letter of the name
            if error.reason != "database_failed":
                raise
    return found


def _find_taken(database: Database) -> dict[str, Failure]:
    """
    Return the DAGs whose resource MySQL's collation equates with another's, such as
    ``DAG:páy`` with ``DAG:pay``: Airflow would find and change that one.

    It belongs to the spelling that is there, or to the first of those DAGs.
    """
    ((letters, collation),) = database.rows(
        "SELECT CHARSET(MIN(name)), COLLATION(MIN(name)) FROM {in}ab_view_menu"
    )
    # dag_id may have another collation, which tells more apart. Null comes first.
    name = f"CONVERT(CONCAT('DAG:', dag_id) USING {letters}) COLLATE {collation}"
    rows = database.rows(f"""
SELECT dag_id, FIRST_VALUE(name) OVER (PARTITION BY name ORDER BY CAST(dag_id AS BINARY))
FROM (SELECT NULL AS dag_id, name FROM {{in}}ab_view_menu
UNION ALL SELECT dag_id, {name} FROM {{in}}serialized_dag) names""")
    return {
        dag_id: Failure("name_reserved", f"the database takes it for {owner!r}")
        for dag_id, owner in rows
        if dag_id is not None and owner != f"DAG:{dag_id}"
    }
