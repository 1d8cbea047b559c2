"""
Hides secrets in the output of Airflow's processes.

Pages without authentication show their last lines, which may quote any secret that the processes
know, such as the broker's URL or the Fernet key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from sync_perm.airflow_config import AirflowConfig
from sync_perm.database.connection import Address

# Shorter secrets are hidden in URLs only, because "airflow" is the password of many databases.
SHORTEST_SECRET = 8
_SECRET_NAME = re.compile(
    r"(password|passwd|passphrase|secret|token|key|url|uri|dsn|conn)$|^airflow_conn_", re.IGNORECASE
)
# Up to the last @ of a word, so that a password with an unquoted @ is hidden completely.
_URL_PASSWORD = re.compile(r"(://[^\s:/@'\"]*):([^\s'\"]{0,2048})@")
_JSON_TEXT = re.compile(r'"(\w+)"\s*:\s*"([^"]+)"')


class Redaction:
    """
    Hides passwords in URLs, and the values of variables and options with names of secrets.
    """

    def __init__(self, config: AirflowConfig, address: Address) -> None:
        self._address = address
        found = {secret.strip() for given in config.given() for secret in _secrets(*given)}
        found.discard(address.url)  # only its password is secret; its host helps
        # The longest first, because it may contain another secret.
        fit = (secret for secret in found if len(secret) >= SHORTEST_SECRET)
        self._secrets = sorted(fit, key=len, reverse=True)

    def hide(self, text: str) -> str:
        """
        Return a text with its secrets replaced.
        """
        text = _URL_PASSWORD.sub(r"\1:***@", self._address.redact(text))
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _secrets(name: str, value: str) -> Iterator[str]:
    if match := _URL_PASSWORD.search(value):
        yield from (match[2], unquote(match[2]))
    if _SECRET_NAME.search(name):
        yield from value.splitlines()
    for key, text in _JSON_TEXT.findall(value):  # a connection may be JSON
        if _SECRET_NAME.search(key):
            yield text
