"""
The one table of failures: what each reason concerns, and what to do about it.

A failure of the cycle ends it, and the loop retries with backoff. A failure of a DAG is
reported beside it; the other DAGs are synced. Errors of the database are told apart in
`database.py` (``PATTERNS``).
"""

from sidecar_runtime.errors import SidecarError

OF_DAGS = (
    "access_control_invalid",
    "dag_too_large",
    "id_too_long",
    "name_reserved",
    "not_fixed",
    "role_missing",
)
"""The reasons why a DAG cannot be synced."""

# What to do about each.
REASONS: dict[str, str] = {
    "access_control_invalid": "Correct the DAG.",
    "role_missing": "Create the role, or correct the DAG.",
    "id_too_long": "Shorten the DAG's id: its permission does not fit into ab_view_menu.name.",
    "name_reserved": "Rename the DAG, and check who has permissions on DAGs: Airflow changes them "
    "when it parses this one.",
    "dag_too_large": "Shorten what the DAG contains.",
    "not_fixed": "Correct what is quoted. Retried every 10 minutes, and at SIGHUP.",
    "config_failed": "Correct the file, or give this container the variables and files that it "
    "reads, as the web server's container has them.",
    "connection_command_failed": "Run `airflow config get-value database sql_alchemy_conn` in "
    "this container; its output is not shown, because it may be a secret.",
    "connection_foreign": "Change the arguments in a do_connect listener, or let a creator call "
    "one of these drivers with plain arguments. What a connect listener sets, set at the server "
    "(ALTER ROLE … SET …).",
    "database_denied": "Correct user and password in the Secret, or the server's access rules, "
    "and restart the pod. Where a command or airflow_local_settings.py tells them, this container "
    "needs it, and no restart.",
    "database_failed": "Read the database's message. PgBouncer takes no search_path: use "
    "ALTER ROLE … SET search_path.",
    "database_lost": "The sidecar reconnects automatically.",
    "database_missing": "Correct the database name in the URL.",
    "database_not_migrated": "Run Airflow's migrations (airflow db migrate), or correct the "
    "schema (AIRFLOW__DATABASE__SQL_ALCHEMY_SCHEMA). Passes wait for it.",
    "database_read_denied": "Grant SELECT on the table to the account in the URL.",
    "database_read_only": "Use an account that may write, as Airflow's own does. After a failover, "
    "the sidecar recovers once the host name leads to the primary.",
    "database_tls_failed": "Correct sslmode, sslrootcert or ssl_ca in the URL or the connect_args.",
    "database_unreachable": "Check the database, the network policies and the host in the URL. The "
    "sidecar recovers automatically.",
    "lock_lost": "The sidecar retries automatically; another one may take over meanwhile.",
    "pass_failed": "Read Airflow's full output in the log at level debug (airflow_said).",
    "pass_killed": "Usually it ran out of memory. Raise the limit: Airflow takes 150 to 210 MB.",
    "pass_timeout": "Look for locks in the database. Raise SYNC_PERM_TIMEOUT if it is too short.",
    "permissions_differ": "Wait: passes write them. If they stay, look for rows_undone in the log: "
    "another process changes these rows, or Airflow does not write them.",
    "roles_unsynced": "Wait for the pass that lets Airflow sync its roles, at the start and when "
    "they were changed.",
    "roles_file_invalid": "Correct the file. Until then it is ignored; rows written earlier stay.",
    "tmpdir_failed": "Free some space there; a pass needs 1 MiB of TMPDIR.",
}


def failure(reason: str, message: str) -> SidecarError:
    """
    Return a failure with the advice of its reason.
    """
    return SidecarError(reason, message, REASONS[reason])
