"""
Reads what is needed of Airflow's configuration before Airflow runs, above all its
database.

Order and expansion follow Airflow: `AirflowConfigParser.get` and `expand_env_var` in
`airflow/configuration.py` (2.11) and `airflow/_shared/configuration/parser.py` (3.3).
"""

import configparser
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.fence import Fence
from sync_perm.reasons import failure

Ask = Callable[[Fence], Mapping[str, Any]]
"""Lets Airflow tell how it connects; see the script's ``connection``."""

# Our drivers, whichever of a database's drivers Airflow uses.
DRIVERS = {"postgresql": "psycopg2", "mysql": "pymysql"}
NO_URL = (
    "is not a URL such as postgresql://USER:PASSWORD@HOST:5432/NAME or mysql://…; an @ in "
    "the password is %40, and an ssl, which is a mapping, belongs to sql_alchemy_connect_args"
)
NOT_SET = (
    "is missing: set it to the URL of Airflow's metadata database, from the same Secret as "
    "the webserver's, or set its _CMD, or its _SECRET with a [secrets] backend"
)
# What drivers call the database.
OF_DATABASE = ("dbname", "database", "db")
# Up to the last @ of a word, so that a password with an unquoted @ is hidden
# completely.
_URL_PASSWORD = re.compile(r"(://[^\s:/@'\"]*):([^\s'\"]{0,2048})@")
# Names of variables and options whose values Airflow's own output may quote.
_SECRET = re.compile(
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
        # An empty one names no file.
        self.path = _expand(environ.get("AIRFLOW_CONFIG", f"{self.home}/airflow.cfg"))
        self._file = configparser.RawConfigParser()
        # which tells SQL_ALCHEMY_CONN from sql_alchemy_conn
        self._file.optionxform = str  # type: ignore[method-assign,assignment]
        try:
            self._file.read_string(Path(self.path).read_text(encoding="utf-8"))
            self.has_file = True
        except (FileNotFoundError, IsADirectoryError):
            self.has_file = False
        except (OSError, UnicodeDecodeError, configparser.Error) as error:
            # The parser's own message quotes the line, which may contain a password.
            raise SettingsError(
                [
                    Problem(
                        "AIRFLOW_CONFIG",
                        self.path,
                        f"cannot be read ({type(error).__name__})",
                    )
                ]
            ) from None
        self._given = [*environ.items()]
        for section in self._file.sections():
            self._given += [
                (f"[{section}] {key}", text) for key, text in self._file.items(section)
            ]

    def secrets(self) -> set[str]:
        """
        Return the values in the environment and in airflow.cfg whose names are those of
        secrets.
        """
        found = {text.strip() for name, text in self._given if _SECRET.search(name)}
        return {text for text in found if len(text) >= SHORTEST_SECRET}

    def named(self, pattern: str) -> list[str]:
        """
        Return the variables, and the options of airflow.cfg, whose names match.
        """
        return [
            name for name, _ in self._given if re.search(pattern, name, re.IGNORECASE)
        ]

    def value(self, section: str, key: str) -> str:
        """
        Return the value that Airflow would use, without Airflow's own default; empty if
        it is unset.
        """
        text = self._file.get(section, key, fallback="").replace("%%", "%")
        return _expand(self.environ.get(f"AIRFLOW__{section}__{key}".upper(), text))


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
        dialect: One of :data:`DRIVERS`.
        text: The URL as Airflow has it.
        arguments: For the driver.
        schema: The schema of the tables; empty for the database's own default.
    """

    dialect: str
    text: str = field(repr=False)
    arguments: Mapping[str, Any] = field(repr=False)
    schema: str = ""

    def __str__(self) -> str:
        port = f":{self.arguments['port']}" if self.arguments.get("port") else ""
        host = self.arguments.get("host") or ""
        return f"{self.dialect}://{host}{port}/{self.database}"

    @property
    def database(self) -> str | None:
        return next(
            (self.arguments[one] for one in OF_DATABASE if one in self.arguments), None
        )

    def redact(self, text: str, others: Iterable[str] = ()) -> str:
        """
        Return a text without passwords in URLs, and without this one and others
        anywhere.

        A password that equals the name of the user, host or database is replaced only
        inside URLs, because as a plain word it reveals nothing.
        """
        given = self.arguments
        secrets = {str(value) for key, value in given.items() if "passw" in key}
        secrets |= {match[2] for match in _URL_PASSWORD.finditer(self.text)}
        secrets -= {"", given.get("user"), given.get("host"), self.database}
        return redact(text, secrets | {*others} - {self.text})


def redact(text: str, secrets: Iterable[str]) -> str:
    """
    Return a text without passwords in URLs, and without these secrets anywhere.
    """
    text = _URL_PASSWORD.sub(r"\1:***@", text)
    # The longest first, because it may contain another one.
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


@dataclass(frozen=True, slots=True)
class Source:
    """
    The source of the connection.

    Args:
        setting: What gives Airflow the URL, and changes its connections.
        address: The address; None if Airflow must tell it, at each connect: it has the
            command or secret, or changes the connection in airflow_local_settings.py.
        ask: Lets Airflow tell it.
    """

    setting: str
    address: Address | None
    ask: Ask = field(repr=False)

    def read(self, fence: Fence) -> Address:
        """
        Return the address; Airflow is asked each time, because what it is told may be
        rotated, or end after minutes.

        Raises:
            SidecarError: Airflow does not tell it, or we cannot connect in this way.
            CycleAbandoned: The fence was revoked, and Airflow killed.
        """
        return self.address or take_over(self.setting, self.ask(fence))


def find_source(config: AirflowConfig, local_settings: str, ask: Ask) -> Source:
    """
    Return where the connection is from. The variable alone, which Airflow prefers to
    all others, needs no Airflow; of the rest, Airflow knows the order.

    Args:
        local_settings: The path of airflow_local_settings.py; empty without one. Most
            do nothing to the connection, so Airflow is asked once.
        ask: Lets Airflow tell how it connects.

    Raises:
        SettingsError: The URL is not set, is invalid, or the database is not supported.
    """
    variable = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
    is_plain = variable in config.environ
    ways = [variable] if is_plain else config.named("sql_alchemy_conn(_cmd|_secret)?$")
    if not ways:
        raise SettingsError([Problem(variable, "", NOT_SET)])
    more = config.named("sql_alchemy_(connect_args|schema)$")
    more += [local_settings] if local_settings else []
    asked = Source(" and ".join([*ways, *more]), None, ask)
    if is_plain:
        address = parse_url(variable, _expand(config.environ[variable]))
        if not more:
            return replace(asked, address=address)
    elif config.named("sql_alchemy_conn_(cmd|secret)$"):
        return asked
    told = ask(Fence())
    text = told.get("text")
    if text:
        parse_url(asked.setting, text)
    if told.get("is_plain") and not told["foreign"]:
        return replace(asked, address=take_over(asked.setting, told))
    return asked


def take_over(setting: str, told: Mapping[str, Any]) -> Address:
    """
    Return the address that Airflow's engine hands to its driver.

    Args:
        told: The answer of the script's ``connection``, or of its ``explained``.

    Raises:
        SidecarError: Airflow failed, or connects as we cannot.
    """
    place = told.get("where")
    if place:
        raise failure("config_failed", f"{place}: {told['failed']}")
    text = told.get("text") or ""
    if not text or text.startswith("sqlite:"):
        # Its text may be the secret.
        kind = told.get("failed", "nothing").partition(":")[0]
        raise failure(
            "connection_command_failed", f"{setting} gave Airflow no URL ({kind})"
        )
    if told["foreign"]:
        raise failure(
            "connection_foreign", f"{setting} uses {'; '.join(told['foreign'])}"
        )
    dialect = "postgresql" if told["driver"].startswith("psycopg") else "mysql"
    return Address(
        dialect, text, as_driver(told["driver"], told["arguments"]), told["schema"]
    )


def parse_url(setting: str, text: str) -> Address:
    """
    Parse an SQLAlchemy URL.

    Raises:
        SettingsError: The URL is invalid, or the database is not supported; it is never
            shown.
    """
    text = re.sub(r"^postgres(?=[+:])", "postgresql", text)
    with suppress(ArgumentError, KeyError, ValueError):
        url = make_url(text)
        dialect = url.get_backend_name().replace("mariadb", "mysql")
        ours = url.set(drivername=f"{dialect}+{DRIVERS[dialect]}")
        # Text after the first @ counts as the host, and would show the rest of a
        # password.
        is_named = url.database and "@" not in (url.host or "") + url.database
        if is_named and "ssl" not in url.query:
            _, given = ours.get_dialect()().create_connect_args(ours)
            return Address(dialect, text, as_driver(url.get_driver_name(), given))
    raise SettingsError([Problem(setting, "***", NO_URL)])


def as_driver(driver: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """
    Return the arguments of one of Airflow's drivers, with what it does unless they say
    more: PyMySQL verifies the host where it has a CA.
    """
    if driver == "pymysql" and "ca" in (given.get("ssl") or {}):
        return {**given, "ssl": {"check_hostname": True, **given["ssl"]}}
    return given
