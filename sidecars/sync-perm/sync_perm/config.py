"""
Reads what is needed of Airflow's configuration before Airflow runs, above all its
database.

Order and expansion follow Airflow (`AirflowConfigParser._lookup_sequence` and
`expand_env_var` in `airflow/configuration.py`, 2.7 to 3.3): an environment variable
overrides airflow.cfg.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from sidecar_runtime import child
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.fence import Fence
from sync_perm.reasons import failure

COMMAND_SECONDS = 30.0
KEY = "sql_alchemy_conn"
# Our drivers, whichever of a database's drivers Airflow uses.
DRIVERS = {"postgresql": "psycopg2", "mysql": "pymysql"}
# Up to the last @ of a word, so that a password with an unquoted @ is hidden
# completely.
_URL_PASSWORD = re.compile(r"(://[^\s:/@'\"]*):([^\s'\"]{0,2048})@")
# Names of variables and options whose values Airflow's own output may quote.
_SECRET_NAME = re.compile(
    r"(pass(w(or)?d|phrase)?|pwd|secret|token|key|conn|credentials?)$|^airflow_conn_",
    re.IGNORECASE,
)
# Shorter ones are hidden in URLs only, because "airflow" is the password of many
# databases.
SHORTEST_SECRET = 8


class AirflowConfig:
    """
    The environment and the airflow.cfg that it names, read once.

    Raises:
        SettingsError: airflow.cfg exists but cannot be read.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.home = _expand(environ.get("AIRFLOW_HOME") or "~/airflow")
        self.path = _expand(environ.get("AIRFLOW_CONFIG") or f"{self.home}/airflow.cfg")
        self._file = configparser.RawConfigParser(
            strict=False, default_section="\0none"
        )
        try:
            self._file.read_string(Path(self.path).read_text(encoding="utf-8"))
            self.has_file = True
        except FileNotFoundError:
            self.has_file = False
        except (OSError, UnicodeDecodeError, configparser.Error) as error:
            # The parser's own message quotes the line, which may contain a password.
            why = f"cannot be read ({type(error).__name__})"
            raise SettingsError([Problem("AIRFLOW_CONFIG", self.path, why)]) from None

    def secrets(self) -> set[str]:
        """
        Return the values in the environment and in airflow.cfg whose names are those of
        secrets.
        """
        options = (
            self._file.items(section, raw=True) for section in self._file.sections()
        )
        given = chain(self.environ.items(), *options)
        found = {text.strip() for name, text in given if _SECRET_NAME.search(name)}
        return {text for text in found if len(text) >= SHORTEST_SECRET}

    def variable(self, section: str, key: str) -> str:
        """
        Return the value in the environment, expanded; empty if it is unset.
        """
        return _expand(self.environ.get(name(section, key)) or "")

    def option(self, section: str, key: str) -> str:
        """
        Return the value in airflow.cfg, expanded; empty if it is unset.
        """
        return _expand(self._file.get(section, key, fallback="").replace("%%", "%"))

    def value(self, section: str, key: str) -> str:
        """
        Return the value that Airflow would use, without Airflow's own default.
        """
        return self.variable(section, key) or self.option(section, key)


def name(section: str, key: str) -> str:
    """
    Return the environment variable of an option.
    """
    return f"AIRFLOW__{section.upper()}__{key.upper()}"


def _expand(text: str) -> str:
    while (expanded := os.path.expanduser(os.path.expandvars(text))) != text:
        text = expanded
    return text


@dataclass(frozen=True, slots=True)
class Address:
    """
    A database and its credentials; the password is never shown, not even in a
    traceback.

    Args:
        text: The URL for Airflow.
        schema: The schema of the tables; empty for the database's own default.
        arguments: What Airflow passes to its driver besides the URL.
    """

    url: URL = field(repr=False)
    text: str = field(repr=False)
    schema: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        port = f":{self.url.port}" if self.url.port else ""
        return f"{self.dialect}://{self.url.host or ''}{port}/{self.url.database}"

    @property
    def dialect(self) -> str:
        return self.url.get_backend_name()

    def redact(self, text: str, others: Iterable[str] = ()) -> str:
        """
        Return a text without passwords in URLs, and without this one and others
        anywhere.

        A password that equals the name of the user, host or database is replaced only
        inside URLs, because as a plain word it reveals nothing.
        """
        text = _URL_PASSWORD.sub(r"\1:***@", text)
        options = [*self.url.query.items(), *self.arguments.items()]
        secrets = {str(value) for key, value in options if "passw" in key}
        secrets |= {
            str(self.url.password),
            *(m[2] for m in _URL_PASSWORD.finditer(self.text)),
        }
        secrets -= {"", "None", self.url.username, self.url.host, self.url.database}
        # The longest first, because it may contain another one.
        for secret in sorted(secrets | {*others} - {self.text}, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


@dataclass(frozen=True, slots=True)
class Source:
    """
    The source of the URL: a variable, an option, or a command in one of them.
    """

    setting: str
    text: str = field(repr=False)
    is_command: bool
    schema: str
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def shown(self) -> str:
        """
        Return the text to show for it: the address, or the name of the setting with the
        command.

        Raises:
            SettingsError: The URL is invalid, or the database is not supported.
        """
        return self.setting if self.is_command else str(self.read())

    def read(self, fence: Fence | None = None) -> Address:
        """
        Return the address; run a command each time, because its output may be rotated.

        Raises:
            SettingsError: The URL is invalid, or the database is not supported.
            SidecarError: The command failed, or printed no valid URL.
            CycleAbandoned: The fence was revoked, and the command killed.
        """
        if not self.is_command:
            return parse_url(self.setting, self.text, self.schema, self.arguments)
        said = child.Kept(is_head=True)
        try:
            command = child.Command(shlex.split(self.text), os.environ)
            code = child.run(
                command, fence or Fence(), COMMAND_SECONDS, said, lambda _: None
            )
            if code == 0:
                return parse_url(
                    self.setting, str(said).strip(), self.schema, self.arguments
                )
            why = f"ended with code {code}"
        except child.DeadlinePassed:
            why = f"was silent for {COMMAND_SECONDS:g} s"
        except SettingsError as error:
            why = f"printed text that {error.problems[0].problem}"
        except (OSError, ValueError) as error:
            why = f"cannot be run ({type(error).__name__})"
        raise failure(
            "connection_command_failed", f"the command in {self.setting} {why}"
        )


def find_source(
    config: AirflowConfig, arguments: Mapping[str, Any] = {}, *, is_2: bool = False
) -> Source:
    """
    Return where Airflow would read the URL from.

    Args:
        arguments: What Airflow passes to its driver besides the URL.
        is_2: Whether this is Airflow 2, which reads the schema from [core], too.

    Raises:
        SettingsError: The URL is not set, or only in a form that needs Airflow itself.
    """
    sections = ("database", "core")
    schemas = (
        config.value(section, "sql_alchemy_schema") for section in sections[: 1 + is_2]
    )
    schema = next(filter(None, schemas), "")
    places = [(name(s, KEY), config.variable, s) for s in sections]
    places += [(f"[{s}] {KEY} in {config.path}", config.option, s) for s in sections]
    for setting, read, section in places:
        if text := read(section, KEY):
            return Source(setting, text, False, schema, arguments)
        if text := read(section, f"{KEY}_cmd"):
            return Source(f"{setting} (command)", text, True, schema, arguments)
    problem = (
        "is missing: set it to the URL of Airflow's metadata database, from the same Secret as the "
        "webserver's, or set a _CMD; a _SECRET needs Airflow's own secrets backend"
    )
    raise SettingsError([Problem(name("database", KEY), "", problem)])


def parse_url(
    setting: str, text: str, schema: str = "", arguments: Mapping[str, Any] = {}
) -> Address:
    """
    Parse an SQLAlchemy URL.

    Raises:
        SettingsError: The URL is invalid, or the database is not supported; it is never
            shown.
    """
    text = re.sub(r"^postgres(?=[+:])", "postgresql", text)
    problem = "is not a URL such as postgresql://USER:PASSWORD@HOST:5432/NAME"
    with suppress(ArgumentError, ValueError):
        url = make_url(text)
        dialect = url.get_backend_name().replace("mariadb", "mysql")
        problem = ""
        if dialect not in DRIVERS:
            problem = f"names {dialect!r}; supported are {' and '.join(DRIVERS)}"
        elif not isinstance(
            {**url.query, **arguments}.get("ssl") or {}, (bool, Mapping)
        ):
            problem = (
                "or its connect_args have an ssl that is neither true nor a mapping"
            )
        elif "@" in (url.host or "") + (url.database or ""):
            # Text after the first @ counts as the host, and would show the rest of a
            # password.
            problem = "has more than one @; in the user and password, write it as %40"
        elif not url.database:
            problem = "names no database after the host"
    if problem:
        raise SettingsError([Problem(setting, "***", problem)])
    # which mysqlclient does not
    if url.drivername.endswith("+pymysql") and "ssl_ca" in url.query:
        url = url.set(query={"ssl_check_hostname": "true", **url.query})
    return Address(
        url.set(drivername=f"{dialect}+{DRIVERS[dialect]}"), text, schema, arguments
    )
