"""
Strict validation of objects against the schemas of Kubernetes.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from jsonschema import Draft202012Validator
from kubernetes_validate import utils  # type: ignore[import-untyped]
from referencing import Registry, Resource

from tests.chart.sidecars import Values

# The oldest version with native sidecars, and a recent one.
VERSIONS = ("1.29", "1.34")
# Without a schema here.
OF_OPERATORS = {
    "external-secrets.io/v1",
    "generators.external-secrets.io/v1alpha1",
    "vpcresources.k8s.aws/v1beta1",
}


@functools.cache
def _validator(kind: str, api_version: str, version: str) -> Draft202012Validator | None:
    """
    Return the validator of a Kubernetes kind; None for other kinds.

    The function of kubernetes-validate reads several megabytes of files at each call.
    """
    group, _, number = api_version.rpartition("/")
    name = "-".join(filter(None, [kind.lower(), group.partition(".")[0], number]))
    folder = next(
        f"v{full}-local-strict" for full in utils.all_versions() if full.startswith(version)
    )
    definitions = _definitions(folder, version)
    try:
        schema = utils.schema_contents(f"kubernetes-json-schema/{folder}/{name}.json", version)
    except FileNotFoundError:
        return None
    registry: Registry[Any] = Resource.from_contents(schema) @ (
        Resource.from_contents(definitions) @ Registry()
    )
    return Draft202012Validator(schema, registry=registry)


@functools.cache
def _definitions(folder: str, version: str) -> Any:
    return utils.schema_contents(f"kubernetes-json-schema/{folder}/_definitions.json", version)


def strict_complaints(thing: Values) -> list[str]:
    """
    Report fields of an object that its schema does not define, or whose values it refuses.
    """
    return [*_strict_complaints(json.dumps(thing))]


@functools.cache  # most pods occur in several values files
def _strict_complaints(text: str) -> tuple[str, ...]:
    thing = json.loads(text)
    kind, api_version = str(thing.get("kind")), str(thing.get("apiVersion"))
    if api_version in OF_OPERATORS:
        return ()
    found: list[str] = []
    for version in VERSIONS:
        if found:
            break  # one refusal is enough
        known = _validator(kind, api_version, version)
        if known is None:
            return (f"unknown kind: {api_version} {kind}, with {sorted(thing)}",)
        found += [
            f"{error.json_path}: Kubernetes {version}: {error.message}"
            for error in known.iter_errors(thing)
        ]
    return tuple(found)
