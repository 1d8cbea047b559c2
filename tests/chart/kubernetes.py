"""
Strict validation of objects against the schemas of Kubernetes.
"""

import functools
import json

import kubernetes_validate  # type: ignore[import-untyped]

from tests.chart.sidecars import Values

# The oldest version with native sidecars, and a recent one.
VERSIONS = ("1.29", "1.34")
# Without a schema here.
OF_OPERATORS = {
    "external-secrets.io/v1",
    "generators.external-secrets.io/v1alpha1",
    "vpcresources.k8s.aws/v1beta1",
}
# Otherwise it lists folders and reads several megabytes of files at each call.
for _name in ("all_versions", "schema_contents"):
    _slow = getattr(kubernetes_validate.utils, _name)
    setattr(kubernetes_validate.utils, _name, functools.cache(_slow))


def strict_complaints(thing: Values) -> list[str]:
    """
    Report fields of an object that its schema does not define, or whose values it
    refuses.
    """
    return [*_complaints(json.dumps(thing))]


@functools.cache  # most pods occur in several values files
def _complaints(text: str) -> list[str]:
    thing = json.loads(text)
    if thing["apiVersion"] in OF_OPERATORS:
        return []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            return [f"Kubernetes {version}: {error}"]
    return []
