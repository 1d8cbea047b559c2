"""
The sidecars in the documentation, and the code that their generated parts come from.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from sidecar_runtime.aws.credentials import ADVICE
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.settings import CommonSettings


@dataclass(frozen=True)
class Documented:
    """
    A sidecar: its folder and package, and the code that its generated documentation
    comes from.

    Args:
        metrics_class: The module and the class of its metrics.
        first: The settings of the published example, with which the tables begin.
        told_by_s3_sync: Reasons of AWS, the gate and the volume, of which the README of
            s3-sync says what to do.
    """

    name: str
    package: str
    metrics_class: str
    first: tuple[str, ...] = ()
    told_by_s3_sync: tuple[str, ...] = ()

    @property
    def readme(self) -> str:
        return f"sidecars/{self.name}/README.md"

    @property
    def settings(self) -> type[CommonSettings]:
        found: type[CommonSettings] = self._of("settings", "Settings")
        return found

    @property
    def prefix(self) -> str:
        return str(self._of("settings", "PREFIX"))

    @property
    def metrics(self) -> Callable[[], Metrics]:
        found: Callable[[], Metrics] = self._of(*self.metrics_class.split(":"))
        return found

    @property
    def reasons(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._of("reasons", "REASONS")
        return found

    def _of(self, module: str, name: str) -> Any:
        return getattr(import_module(f"{self.package}.{module}"), name)


EXAMPLE = ("AWS_BUCKET", "KEY_PATH", "DEST_PATH", "INTERVAL")
GATED = ("revision_refused", "gate_undecided", "target_failed")
SIDECARS = (
    Documented("s3-sync", "s3_sync", "metrics:SyncMetrics", EXAMPLE),
    Documented(
        "kerberos",
        "kerberos_sidecar",
        "metrics:KerberosMetrics",
        ("INTERVAL", "KRB5_CONFIG"),
    ),
    Documented("sync-perm", "sync_perm", "readiness:PermMetrics", ("INTERVAL",)),
    Documented(
        "git-sync-wrapper",
        "git_sync_wrapper",
        "sidecar:WrapperMetrics",
        told_by_s3_sync=(*GATED, *(x for x in ADVICE if x.startswith("credentials"))),
    ),
)
