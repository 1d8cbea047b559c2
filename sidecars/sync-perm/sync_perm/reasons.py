"""
The one table of failures: what each reason concerns, and what to do about it.

A failure of the cycle ends it, and the loop retries with backoff. A failure of a DAG is reported
beside it; the other DAGs are synced.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from sidecar_runtime.errors import SidecarError


class Reason(NamedTuple):
    """
    Args:
        concerns: ``dag``: this DAG only. ``file``: the roles file, which is ignored.
        advice: What to do; empty if the message says it.
    """

    concerns: Literal["cycle", "dag", "file"]
    advice: str = ""


_CORRECT = "Correct the file. Until then it is ignored, and rows written earlier stay."

REASONS: dict[str, Reason] = {
    "access_control_invalid": Reason("dag"),
    "config_failed": Reason(
        "cycle",
        "Correct the file, or give this container the variables and files that it reads, as the "
        "web server's container has them.",
    ),
    "connection_command_failed": Reason(
        "cycle",
        "Run it in this container; its output is not shown, because it may be a secret.",
    ),
    "database_denied": Reason(
        "cycle",
        "Correct user and password in the Secret, or the server's access rules. Then restart the "
        "pod, unless the URL comes from a command.",
    ),
    "database_failed": Reason("cycle", "Read the database's message."),
    "database_lost": Reason("cycle", "The sidecar reconnects automatically."),
    "database_missing": Reason("cycle", "Correct the database name in the URL."),
    "database_not_migrated": Reason(
        "cycle",
        "Run Airflow's migrations (airflow db migrate), or correct the schema. Passes wait for it.",
    ),
    "database_read_denied": Reason("cycle", "Grant SELECT on the table to the account in the URL."),
    "database_read_only": Reason(
        "cycle",
        "Use an account that may write, as Airflow's own does. After a failover, the sidecar "
        "recovers once the host name leads to the primary.",
    ),
    "database_tls_failed": Reason(
        "cycle", "Correct sslmode, sslrootcert or ssl_ca in the URL or in the connect_args."
    ),
    "database_unreachable": Reason(
        "cycle",
        "Check the database, the network policies and the host in the URL. The sidecar recovers "
        "automatically.",
    ),
    "id_too_long": Reason("dag"),
    "lock_lost": Reason(
        "cycle", "The sidecar retries automatically; another one may take over meanwhile."
    ),
    "not_fixed": Reason("dag"),
    "pass_failed": Reason(
        "cycle", "Read Airflow's full output in the log at level debug (airflow_said)."
    ),
    "pass_killed": Reason(
        "cycle", "It usually ran out of memory. Raise the limit: Airflow alone takes 150 to 210 MB."
    ),
    "pass_timeout": Reason(
        "cycle", "Look for locks in the database. Raise SYNC_PERM_TIMEOUT if Airflow needs longer."
    ),
    "permissions_differ": Reason(
        "cycle",
        "Look for rows_undone in the log: another process changes these rows, or Airflow does not "
        "write them.",
    ),
    "role_missing": Reason("dag"),
    "role_name_unsupported": Reason(
        "file", "Rename the role, or convert the database to UTF-8 (utf8mb4)."
    ),
    "roles_file_invalid": Reason("file", _CORRECT),
    "roles_file_unreadable": Reason("file", _CORRECT),
    "tmpdir_failed": Reason("cycle", "Free some space there; a pass needs 1 MiB of TMPDIR."),
}

OF_DAGS = tuple(name for name, reason in REASONS.items() if reason.concerns == "dag")
"""The reasons why a DAG cannot be synced."""


def failure(reason: str, message: str) -> SidecarError:
    """
    Return a failure with the advice of its reason.
    """
    return SidecarError(reason, message, REASONS[reason].advice)
