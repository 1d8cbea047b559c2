"""
Reads the parts of Airflow's configuration that are needed before Airflow runs.

Order and expansion follow Airflow (`AirflowConfigParser._lookup_sequence` and `expand_env_var` in
`airflow/configuration.py`, 2.7 to 3.3): an environment variable overrides airflow.cfg.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator, Mapping

from sidecar_runtime.errors import Problem, SettingsError


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
        self._file = configparser.ConfigParser(strict=False, default_section="\0none")
        try:
            with open(self.path, encoding="utf-8") as file:
                self._file.read_file(file)
            self.has_file = True
        except FileNotFoundError:
            self.has_file = False
        except (OSError, UnicodeDecodeError, configparser.Error) as error:
            # The parser's own message quotes the line, which may contain a password.
            raise self._unreadable(error) from None

    @property
    def dags_folder(self) -> str:
        """
        Return the folder of Airflow 2's DAGs.
        """
        return self.value("core", "dags_folder") or f"{self.home}/dags"

    def variable(self, section: str, key: str) -> str | None:
        """
        Return the value in the environment, expanded; None if it is unset or empty.
        """
        text = self.environ.get(name(section, key))
        return _expand(text) if text else None

    def option(self, section: str, key: str) -> str | None:
        """
        Return the value in airflow.cfg, expanded; None if it is unset or empty.

        Raises:
            SettingsError: The value refers to a missing option (an unescaped ``%``).
        """
        try:
            text = self._file.get(section, key, fallback=None)
        except configparser.Error as error:
            raise self._unreadable(error, f"[{section}] {key}") from None
        return _expand(text) if text else None

    def value(self, section: str, key: str) -> str | None:
        """
        Return the value that Airflow would use, without Airflow's own default.
        """
        return self.variable(section, key) or self.option(section, key)

    def given(self) -> Iterator[tuple[str, str]]:
        """
        Yield the names and values of all environment variables and all options in airflow.cfg.
        """
        yield from self.environ.items()
        for section in self._file.sections():
            yield from self._file.items(section, raw=True)

    def _unreadable(self, error: Exception, where: str = "") -> SettingsError:
        why = f"cannot be read ({type(error).__name__}{': ' + where if where else ''})"
        return SettingsError([Problem("AIRFLOW_CONFIG", self.path, why)])


def name(section: str, key: str) -> str:
    """
    Return the environment variable of an option.
    """
    return f"AIRFLOW__{section.upper()}__{key.upper()}"


def _expand(text: str) -> str:
    while (expanded := os.path.expanduser(os.path.expandvars(text))) != text:
        text = expanded
    return text
