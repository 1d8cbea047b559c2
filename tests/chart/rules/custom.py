"""
Schemas of the custom resources in the snippets, limited to the fields that the snippets use.

Written from the operators' reference: External Secrets 0.16+ (external-secrets.io/v1), the VPC
resource controller (vpcresources.k8s.aws/v1beta1). Snippets must not use any other field.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT, "minProperties": 1}
DURATION: Schema = {"type": "string", "pattern": r"^(\d+(ms|s|m|h))+$"}


def record(required: dict[str, Schema], **optional: Schema) -> Schema:
    """
    Return the schema of a map with these keys and no others.
    """
    return {
        "type": "object",
        "required": list(required),
        "properties": required | optional,
        "additionalProperties": False,
    }


def every(item: Schema) -> Schema:
    """
    Return the schema of a list with at least one item.
    """
    return {"type": "array", "items": item, "minItems": 1}


def kind(api_version: str, name: str, spec: Schema) -> tuple[tuple[str, str], Schema]:
    """
    Return the API version, the name and the schema of a kind of object.
    """
    head = {"apiVersion": {"const": api_version}, "kind": {"const": name}}
    metadata = record({"name": TEXT}, namespace=TEXT, labels=TEXTS, annotations=TEXTS)
    return (api_version, name), record({**head, "metadata": metadata, "spec": spec})


_AWS_AUTH = record({"jwt": record({"serviceAccountRef": record({"name": TEXT})})})
_REMOTE = record(
    {"key": TEXT},
    property=TEXT,
    decodingStrategy={"enum": ["Auto", "Base64", "Base64URL", "None"]},
)
_GENERATOR = record(
    {
        "apiVersion": {"const": "generators.external-secrets.io/v1alpha1"},
        "kind": {"const": "ECRAuthorizationToken"},
        "name": TEXT,
    }
)
_EXTERNAL_SECRET = record(
    {
        "refreshInterval": DURATION,
        "target": record({"name": TEXT}, template=record({"data": TEXTS}, type=TEXT)),
    },
    # A generator needs no store.
    secretStoreRef=record({"kind": {"enum": ["SecretStore", "ClusterSecretStore"]}, "name": TEXT}),
    data=every(record({"secretKey": TEXT, "remoteRef": _REMOTE})),
    dataFrom=every(
        {
            "oneOf": [
                record({"extract": _REMOTE}),
                record({"sourceRef": record({"generatorRef": _GENERATOR})}),
            ]
        }
    ),
)
_SECRET_STORE = record(
    {
        "provider": record(
            {
                "aws": record(
                    {"service": {"const": "SecretsManager"}, "region": TEXT, "auth": _AWS_AUTH}
                )
            }
        )
    }
)
_SECURITY_GROUPS = record(
    {
        "podSelector": record({"matchLabels": TEXTS}),
        "securityGroups": record(
            {
                "groupIds": every({"type": "string", "pattern": "^sg-[0-9a-f]{17}$"})
                | {"maxItems": 5}
            }
        ),
    }
)

CUSTOM = dict(
    [
        kind("external-secrets.io/v1", "ExternalSecret", _EXTERNAL_SECRET),
        kind("external-secrets.io/v1", "SecretStore", _SECRET_STORE),
        kind(
            "generators.external-secrets.io/v1alpha1",
            "ECRAuthorizationToken",
            record({"region": TEXT, "auth": _AWS_AUTH}),
        ),
        kind("vpcresources.k8s.aws/v1beta1", "SecurityGroupPolicy", _SECURITY_GROUPS),
    ]
)
