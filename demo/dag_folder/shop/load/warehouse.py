"""Loading into the warehouse."""

from pathlib import Path

SQL = Path(__file__).parents[2] / "sql"


def copy_into(table: str, path: str) -> int:
    """Copy a file into a table and return its rows."""
    statement = (SQL / "staging" / "copy.sql").read_text().format(table=table, path=path)
    return len(statement)
