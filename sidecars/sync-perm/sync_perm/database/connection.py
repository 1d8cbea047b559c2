"""
Finds the database: reads the URL from where Airflow would, and parses it for the drivers.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, quote_plus, unquote

from sidecar_runtime import child
from sidecar_runtime.errors import Problem, SettingsError, SidecarError
from sidecar_runtime.fence import Fence
from sync_perm.airflow_config import AirflowConfig, name

COMMAND_SECONDS = 30.0
KEY = "sql_alchemy_conn"
DIALECTS = ("postgresql", "mysql", "sqlite")

# `dialect[+driver]://user:password@host:port/database?option=value`, as SQLAlchemy reads it:
# https://docs.sqlalchemy.org/en/20/core/engines.html#database-urls
_URL = re.compile(
    r"(?P<dialect>\w+)(?:\+(?P<driver>\w+))?://"
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?:\[(?P<host6>[^/?]+)\]|(?P<host>[^/:?]+))?(?::(?P<port>\d*))?"
    r"(?:/(?P<database>[^?]*))?(?:\?(?P<options>.*))?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """
    A database and its credentials; the password is never shown, not even in a traceback.

    Args:
        options: The query of the URL; repeated options are joined with a comma.
        url: The URL for Airflow.
        schema: The schema of the tables; empty for the database's own default.
    """

    dialect: str
    host: str
    port: int | None
    user: str
    password: str = field(repr=False)
    database: str
    options: Mapping[str, str] = field(repr=False)
    schema: str
    url: str = field(repr=False)

    def __str__(self) -> str:
        if self.dialect == "sqlite":
            return f"sqlite:///{self.database}"
        port = f":{self.port}" if self.port else ""
        return f"{self.dialect}://{self.host}{port}/{self.database}"

    def redact(self, text: str) -> str:
        """
        Return a text with every form of the password replaced.

        A password that equals the name of the user, host or database is replaced only inside URLs,
        because as a plain word it reveals nothing.
        """
        match = _URL.fullmatch(self.url)
        forms = {quote(self.password, safe=safe) for safe in ("", " +")}  # the second: SQLAlchemy's
        forms |= {self.password, quote_plus(self.password)}
        forms |= {match["password"] or ""} if match else set()  # as quoted by the user
        forms |= {secret for key, secret in self.options.items() if "password" in key}
        public = {"", self.user, self.host, self.database}
        for form in sorted(forms - {""}, key=len, reverse=True):
            text = text.replace(f":{form}@", ":***@")
            if form not in public:
                text = text.replace(form, "***")
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
            return parse_url(self.setting, self.text, self.schema)
        said = child.Kept(is_head=True)
        try:
            command = child.Command(shlex.split(self.text), os.environ)
            code = child.run(command, fence or Fence(), COMMAND_SECONDS, said, lambda _: None)
            if code == 0:
                return parse_url(self.setting, str(said).strip(), self.schema)
            why = f"ended with code {code}"
        except child.DeadlinePassed:
            why = f"was silent for {COMMAND_SECONDS:g} s"
        except SettingsError as error:
            why = f"printed text that {error.problems[0].problem}"
        except (OSError, ValueError) as error:
            why = f"cannot be run ({type(error).__name__})"
        raise SidecarError(
            "connection_command_failed",
            f"the command in {self.setting} {why}",
            "Run it in this container; its output is not shown, because it may be a secret.",
        )


def find_source(config: AirflowConfig) -> Source:
    """
    Return where Airflow would read the URL from.

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


def parse_url(setting: str, text: str, schema: str) -> Address:
    """
    Parse an SQLAlchemy URL.

    Raises:
        SettingsError: The URL is invalid, or the database is not supported; it is never shown.
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise _wrong(setting, "is not a URL such as postgresql://USER:PASSWORD@HOST:5432/NAME")
    part = match.groupdict(default="")
    dialect = {"postgres": "postgresql", "mariadb": "mysql"}.get(part["dialect"], part["dialect"])
    if dialect not in DIALECTS:
        raise _wrong(setting, f"names {dialect!r}; supported are {', '.join(DIALECTS)}")
    options: dict[str, str] = {}
    for key, value in parse_qsl(part["options"], keep_blank_values=True):
        options[key] = f"{options[key]},{value}" if key in options else value
    if dialect == "sqlite":
        if not part["database"].startswith("/"):
            raise _wrong(setting, "must have an absolute path: sqlite:////path/to/airflow.db")
    elif "@" in part["host"] + part["database"]:
        # Text after the first @ counts as the host, and would show the rest of a password.
        raise _wrong(setting, "has more than one @; in the user and password, write it as %40")
    elif not part["database"]:
        raise _wrong(setting, "names no database after the host")
    if part["port"] and not 0 < int(part["port"]) < 65536:
        raise _wrong(setting, "has a port that is not between 1 and 65535")
    return Address(
        dialect=dialect,
        host=part["host6"] or part["host"],
        port=int(part["port"]) if part["port"] else None,
        user=unquote(part["user"]),
        password=unquote(part["password"]),
        database=part["database"],
        options=options,
        schema=schema,
        url=re.sub(r"^postgres(?=[+:])", "postgresql", text),
    )


def _wrong(setting: str, problem: str) -> SettingsError:
    return SettingsError([Problem(setting, "***", problem)])
