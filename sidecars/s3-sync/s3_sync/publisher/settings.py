"""
The settings that only the commands of the publisher have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from s3_sync.settings import INSTEAD, PREFIX, Settings, check, key_file, without_key
from sidecar_runtime.settings import load, setting


@dataclass(frozen=True, kw_only=True)
class CommandSettings(Settings):
    """
    The settings of a command.
    """

    sign_key: str | None = setting(
        "SIGN_KEY",
        key_file,
        show=without_key,
        allowed="a file with an unencrypted Ed25519 private key in PEM format",
        text="The key with which publish, promote and rollback sign. Never mount it in a pod.",
    )


def load_command_settings(environ: Mapping[str, str]) -> tuple[CommandSettings, list[str]]:
    """
    Read the settings; return them and the unknown variables.

    Raises:
        SettingsError: One or more settings are wrong; the error lists all of them.
    """
    return load(CommandSettings, PREFIX, environ, instead=INSTEAD, check=check)
