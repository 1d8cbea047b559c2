"""The settings of s3-sync: valid values, and likely mistakes."""

import pytest

from s3_sync.settings import INSTEAD, Settings, bucket, load_settings
from sidecar_runtime.errors import Problem, SettingsError
from tests import Texts
from tests.support.raising import raised

EXAMPLE = {
    "AWS_BUCKET": "a-bucket",
    "KEY_PATH": "dags",
    "DEST_PATH": "/opt/dags",
    "INTERVAL": "10",
}
ARN = "arn:aws:s3:eu-central-1:123456789012:accesspoint/dags"
SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}
RELEASES = {"S3_SYNC_SOURCE": "release", **SNAPSHOT}
REVISION = f"sha256-{'0123456789abcdef' * 4}"


def read(**environ: str) -> Settings:
    return load_settings(EXAMPLE | environ)[0]


def problem_of(**environ: str) -> Problem:
    (problem,) = raised(SettingsError, load_settings, EXAMPLE | environ).problems
    return problem


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("", ""), ("/", ""), ("dags", "dags/"), ("/dags/", "dags/"), ("//a/b//", "a/b/"),
     ("a//b", "a//b/"), (" /a b/+%ü/ ", "a b/+%ü/")],
)  # fmt: skip
def test_a_prefix_is_a_whole_folder(text: str, prefix: str) -> None:
    """`dags` does not match `dags-old/`."""
    assert read(KEY_PATH=text).prefix == prefix


# Beside these settings, the next one has no effect without the last one; the table of
# the README says of each setting what it needs.
WITHOUT_EFFECT = [
    (RELEASES, "INCLUDE", "*.py", "SOURCE=listing"),
    ({}, "RETAIN_COUNT", "5", "LAYOUT=snapshot"),
    (SNAPSHOT, "KEEP_REQUESTED", "3", "SOURCE=release"),
    (SNAPSHOT, "GATE_TIMEOUT", "30s", "GATE=syntax or command"),
]
WRONG: list[tuple[Texts, str, str, str]] = [
    ({}, "S3_SYNC_LAYOUT", "symlink", "is not one of in-place, snapshot"),
    ({}, "S3_SYNC_RETAIN_COUNT", "-1", "is not a whole number, 0 or more"),
    ({}, "S3_SYNC_RETAIN_FOR", "ever", "is not a duration"),
    ({}, "S3_SYNC_SETTLE", "8d", "is not"),
    ({}, "S3_SYNC_MAX_DELETE", "101%", "is not a percentage"),
    (
        {},
        "S3_SYNC_BUCKET_ACCESS",
        "anonymous",
        "is not one of private, requester-pays, public",
    ),
    # YAML turned the mode into another number.
    *(({}, "S3_SYNC_FILE_MODE", mode, "") for mode in ("420", "436", "rw-", "0999")),
    ({}, "S3_SYNC_GATE", "pylint", "is not one of off, syntax, command"),
    ({}, "S3_SYNC_SOURCE", "release", "needs S3_SYNC_LAYOUT=snapshot"),
    ({}, "S3_SYNC_GATE", "syntax", "Airflow's dags_folder to /opt/dags/current"),
    *(
        (given, f"S3_SYNC_{name}", value, f"has no effect without S3_SYNC_{needed}")
        for given, name, value, needed in WITHOUT_EFFECT
    ),
    (RELEASES, "S3_SYNC_REVISION", REVISION[:12], "64 hexadecimal digits"),
    *(
        ({}, f"S3_SYNC_{name}CLUDE", glob, "can match no key: write it as in pkg/*")
        for name in ("IN", "EX")
        for glob in ("pkg/", "/pkg/*", "'pkg/*'", '"pkg/*"')
    ),
]


@pytest.mark.parametrize(("given", "name", "value", "said"), WRONG)
def test_refuses_wrong_values(given: Texts, name: str, value: str, said: str) -> None:
    problem = problem_of(**given, **{name: value})

    assert (name, value) == (problem.setting, problem.value)
    assert said in problem.problem


# --- the bucket

BUCKETS = ["abc", "my.dotted.bucket", "1bucket", "Legacy_Bucket", "a" * 63, ARN,
           ARN.replace("/", ":"), ARN.replace("aws", "aws-cn", 1)]  # fmt: skip
NO_BUCKETS = [
    "ab", "a" * 64, "a bucket", "-bucket", "bucket/dags", "bucket\r\nHost:x", "bucket@evil.example",
    "../bucket", "arn:aws:s3:::a-bucket", "arn:aws:s3::123456789012:accesspoint/m.mrap",
    ARN.replace(":s3:", ":s3-object-lambda:"), "mfzwi23gnjvgw.mrap", "bucket--use1-az4--x-s3",
    "access-point--use1-az4--xa-s3", "access-point-a1b2c3--ol-s3", "access-point-a1b2c3--op-s3",
]  # fmt: skip


@pytest.mark.parametrize("name", [*BUCKETS, *NO_BUCKETS])
def test_accepts_ordinary_buckets_and_access_points_only(name: str) -> None:
    if name in BUCKETS:
        assert name == bucket(name)
    else:
        assert "neither the name of an ordinary bucket" in str(
            raised(ValueError, bucket, name)
        )


@pytest.mark.parametrize("name", ["AWS_BUCKET", "KEY_PATH"])
def test_suggests_bucket_and_key_path_for_a_url_without_its_password(name: str) -> None:
    found = problem_of(**{name: "S3://user:hunt/er2@box/dags"})

    assert "write AWS_BUCKET=a-bucket KEY_PATH=dags" in found.problem
    assert "S3://***@box/dags" == found.value


# --- names


@pytest.mark.parametrize("slip", sorted(INSTEAD))
def test_a_wrong_name_of_key_path_does_not_select_the_whole_bucket(slip: str) -> None:
    error = raised(
        SettingsError,
        load_settings,
        {name: value for name, value in EXAMPLE.items() if name != "KEY_PATH"}
        | {slip: "dags"},
    )

    assert [
        Problem(slip, None, "is not a setting; did you mean KEY_PATH?")
    ] == error.problems
    assert "" == load_settings(EXAMPLE | {slip: "dags", "KEY_PATH": "/"})[0].prefix
