"""
What Airflow's processes say, without the secrets that they were given.

Their last words are on pages that ask for no password, and may quote any of them: the broker's URL,
the Fernet key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from sync_perm.airflow_config import AirflowConfig
from sync_perm.database.connection import Address

# Shorter ones are hidden in URLs only: "airflow" is the password of many a database.
SHORTEST_SECRET = 8
_SECRET_NAME = re.compile(
    r"(password|passwd|passphrase|secret|token|key|url|uri|dsn|conn)$|^airflow_conn_", re.IGNORECASE
)
# Up to the last @ of a word: whoever forgets to quote a password shows none of it.
_URL_PASSWORD = re.compile(r"(://[^\s:/@'\"]*):([^\s'\"]{0,2048})@")
_JSON_TEXT = re.compile(r'"(\w+)"\s*:\s*"([^"]+)"')


class Redaction:
    """
    Hides the passwords of all URLs, and what variables and airflow.cfg call a key or the like.
    """

    def __init__(self, config: AirflowConfig, address: Address) -> None:
        self._address = address
        found = {secret.strip() for given in config.given() for secret in _secrets(*given)}
        found.discard(address.url)  # it has a password at most, and where the database is helps
        # The longest first: another one may be a part of it.
        fit = (secret for secret in found if len(secret) >= SHORTEST_SECRET)
        self._secrets = sorted(fit, key=len, reverse=True)

    def hide(self, text: str) -> str:
        """
        Return the text without them.
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
    for key, text in _JSON_TEXT.findall(value):  # a connection may be written so
        if _SECRET_NAME.search(key):
            yield text
