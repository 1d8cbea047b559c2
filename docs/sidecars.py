"""
The sidecars in the documentation, and the code that their generated parts come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import git_sync_wrapper.metrics
import git_sync_wrapper.settings
import kerberos_sidecar.metrics
import kerberos_sidecar.settings
import s3_sync.metrics
import s3_sync.settings
import sync_perm.settings
import sync_perm.status
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.settings import CommonSettings


@dataclass(frozen=True, kw_only=True)
class Documented:
    """
    A sidecar: its folder and package, and the code that its generated documentation comes from.

    Args:
        metrics: The class of its metrics; called with a version and a revision.
        first: The settings of the published example, with which the tables begin.
    """

    name: str
    package: str
    settings: type[CommonSettings]
    prefix: str
    metrics: Callable[[str, str], Metrics]
    first: tuple[str, ...]

    @property
    def readme(self) -> str:
        return f"sidecars/{self.name}/README.md"


SIDECARS = (
    Documented(
        name="s3-sync",
        package="s3_sync",
        settings=s3_sync.settings.Settings,
        prefix=s3_sync.settings.PREFIX,
        metrics=s3_sync.metrics.SyncMetrics,
        first=("AWS_BUCKET", "KEY_PATH", "DEST_PATH", "INTERVAL"),
    ),
    Documented(
        name="kerberos",
        package="kerberos_sidecar",
        settings=kerberos_sidecar.settings.Settings,
        prefix=kerberos_sidecar.settings.PREFIX,
        metrics=kerberos_sidecar.metrics.KerberosMetrics,
        first=("INTERVAL", "KRB5_CONFIG"),
    ),
    Documented(
        name="sync-perm",
        package="sync_perm",
        settings=sync_perm.settings.Settings,
        prefix=sync_perm.settings.PREFIX,
        metrics=sync_perm.status.PermMetrics,
        first=("INTERVAL",),
    ),
    Documented(
        name="git-sync-wrapper",
        package="git_sync_wrapper",
        settings=git_sync_wrapper.settings.Settings,
        prefix=git_sync_wrapper.settings.PREFIX,
        metrics=git_sync_wrapper.metrics.WrapperMetrics,
        first=(),
    ),
)
