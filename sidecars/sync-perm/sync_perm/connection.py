"""
Finds the database: reads the URL from where Airflow would, and how to connect to it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from sidecar_runtime import child
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.fence import Fence
from sync_perm.airflow_config import AirflowConfig, name
from sync_perm.reasons import failure

COMMAND_SECONDS = 30.0
KEY = "sql_alchemy_conn"
# Our drivers, whichever of a database's drivers Airflow uses.
DRIVERS = {"postgresql": "psycopg2", "mysql": "pymysql"}
_DIALECTS = {"postgres": "postgresql", "mariadb": "mysql"}


@dataclass(frozen=True, slots=True)
class Address:
    """
    A database and its credentials; the password is never shown, not even in a traceback.

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

    def redact(self, text: str) -> str:
        """
        Return a text with every form of the password replaced.

        A password that equals the name of the user, host or database is replaced only inside URLs,
        because as a plain word it reveals nothing.
        """
        public = {"", self.url.username, self.url.host, self.url.database}
        for form in sorted(set(self._secrets()) - {""}, key=len, reverse=True):
            text = text.replace(f":{form}@", ":***@")
            if form not in public:
                text = text.replace(form, "***")
        return text

    def _secrets(self) -> Iterator[str]:
        password = str(self.url.password or "")
        yield from (password, quote_plus(password))
        yield from (quote(password, safe=safe) for safe in ("", " +"))  # the second: SQLAlchemy's
        if match := re.match(r"[^:]+://[^:/@]*:([^@]*)@", self.text):
            yield match[1]  # as quoted by the user
        for key, value in [*self.url.query.items(), *self.arguments.items()]:
            if "passw" in key:
                yield str(value)


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
        Return the text to show for it: the address, or the name of the setting with the command.

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
            return self._parse(self.text)
        said = child.Kept(is_head=True)
        try:
            command = child.Command(shlex.split(self.text), os.environ)
            code = child.run(command, fence or Fence(), COMMAND_SECONDS, said, lambda _: None)
            if code == 0:
                return self._parse(str(said).strip())
            why = f"ended with code {code}"
        except child.DeadlinePassed:
            why = f"was silent for {COMMAND_SECONDS:g} s"
        except SettingsError as error:
            why = f"printed text that {error.problems[0].problem}"
        except (OSError, ValueError) as error:
            why = f"cannot be run ({type(error).__name__})"
        raise failure("connection_command_failed", f"the command in {self.setting} {why}")

    def _parse(self, text: str) -> Address:
        return parse_url(self.setting, text, self.schema, self.arguments)


def find_source(config: AirflowConfig) -> Source:
    """
    Return where Airflow would read the URL from, without the arguments for its driver.

    Raises:
        SettingsError: The URL is not set, or only in a form that needs Airflow itself.
    """
    schema = config.value("database", "sql_alchemy_schema") or ""
    sections = ("database", "core")
    places = [(name(s, KEY), config.variable, s) for s in sections]
    places += [(f"[{s}] {KEY} in {config.path}", config.option, s) for s in sections]
    for setting, read, section in places:
        if text := read(section, KEY):
            return Source(setting, text, False, schema)
        if text := read(section, f"{KEY}_cmd"):
            return Source(f"{setting} (command)", text, True, schema)
        if read(section, f"{KEY}_secret"):
            problem = "needs Airflow's secrets backend; set the URL itself, or a _CMD"
            raise SettingsError([Problem(f"{name(section, KEY)}_SECRET", "", problem)])
    problem = (
        "is missing: set it to the URL of Airflow's metadata database, "
        "from the same Secret as the webserver's"
    )
    raise SettingsError([Problem(name("database", KEY), "", problem)])


def parse_url(
    setting: str, text: str, schema: str = "", arguments: Mapping[str, Any] = {}
) -> Address:
    """
    Parse an SQLAlchemy URL.

    Raises:
        SettingsError: The URL is invalid, or the database is not supported; it is never shown.
    """
    text = re.sub(r"^postgres(?=[+:])", "postgresql", text)
    try:
        url = make_url(text)
        dialect = _DIALECTS.get(url.get_backend_name(), url.get_backend_name())
    except (ArgumentError, ValueError):
        raise _wrong(
            setting, "is not a URL such as postgresql://USER:PASSWORD@HOST:5432/NAME"
        ) from None
    if dialect not in DRIVERS:
        raise _wrong(setting, f"names {dialect!r}; supported are {' and '.join(DRIVERS)}")
    if "@" in (url.host or "") + (url.database or ""):
        # Text after the first @ counts as the host, and would show the rest of a password.
        raise _wrong(setting, "has more than one @; in the user and password, write it as %40")
    if not url.database:
        raise _wrong(setting, "names no database after the host")
    if url.drivername.endswith("+pymysql") and "ssl_ca" in url.query:  # which mysqlclient does not
        url = url.set(query={"ssl_check_hostname": "true", **url.query})
    return Address(url.set(drivername=f"{dialect}+{DRIVERS[dialect]}"), text, schema, arguments)


def _wrong(setting: str, problem: str) -> SettingsError:
    return SettingsError([Problem(setting, "***", problem)])
