"""The settings of s3-sync: valid values, and likely mistakes."""

import shutil

import pytest

from s3_sync.settings import INSTEAD, Settings, bucket, load_settings
from sidecar_runtime.errors import Problem, SettingsError
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


def test_the_published_example_is_complete_and_the_defaults_match_the_contract() -> (
    None
):
    settings, unknown = load_settings(EXAMPLE)

    assert [] == unknown
    assert ("dags/", "s3://a-bucket/dags/") == (settings.prefix, settings.source)
    assert {
        "bucket": "a-bucket", "dest_path": "/opt/dags", "interval_seconds": 10.0,
        "http_bind": ("", 9811), "delete": "managed", "allow_empty": False, "file_mode": 0o644,
        "fsync": False, "include": (), "exclude": (), "bucket_access": "private",
        "timeout_seconds": 600.0, "max_failures": 0, "layout": "in-place", "gate": "off",
        "settle_seconds": 0.0, "retain_count": 2, "retain_seconds": 600.0, "gate_grammar": None,
        "gate_command": None, "gate_timeout_seconds": 60.0, "source_kind": "listing",
    }.items() <= vars(settings).items()  # fmt: skip


def test_reads_a_gate_and_a_pinned_release() -> None:
    command = "python3 -m compileall 'with blank'"
    gate = read(**SNAPSHOT, S3_SYNC_GATE="command", S3_SYNC_GATE_COMMAND=command)

    assert (
        shutil.which("python3"),
        "-m",
        "compileall",
        "with blank",
    ) == gate.gate_command
    assert REVISION == read(**RELEASES, S3_SYNC_REVISION=f" {REVISION} ").revision
    assert read(**RELEASES).revision is None


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("", ""), ("/", ""), ("dags", "dags/"), ("/dags/", "dags/"), ("//a/b//", "a/b/"),
     ("a//b", "a//b/"), (" /a b/+%ü/ ", "a b/+%ü/")],
)  # fmt: skip
def test_a_prefix_is_a_whole_folder(text: str, prefix: str) -> None:
    """`dags` does not match `dags-old/`."""
    assert read(KEY_PATH=text).prefix == prefix


NOT_FOR_RELEASES = {
    "INCLUDE": "*.py", "EXCLUDE": "*.md", "SETTLE": "30s", "ALLOW_EMPTY": "true", "DELETE": "none"
}  # fmt: skip
WRONG: list[tuple[dict[str, str], str, str, str]] = [
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
        (
            RELEASES,
            f"S3_SYNC_{name}",
            value,
            "cannot be used with S3_SYNC_SOURCE=release",
        )
        for name, value in NOT_FOR_RELEASES.items()
    ),
    ({}, "S3_SYNC_REVISION", REVISION, "requires S3_SYNC_SOURCE=release"),
    (RELEASES, "S3_SYNC_REVISION", REVISION[:12], "64 hexadecimal digits"),
    *(
        ({}, f"S3_SYNC_{name}CLUDE", glob, "can match no key: write it as in pkg/*")
        for name in ("IN", "EX")
        for glob in ("pkg/", "/pkg/*", "'pkg/*'", '"pkg/*"')
    ),
]


@pytest.mark.parametrize(("given", "name", "value", "said"), WRONG)
def test_refuses_wrong_values(
    given: dict[str, str], name: str, value: str, said: str
) -> None:
    problem = problem_of(**given, **{name: value})

    assert (name, value) == (problem.setting, problem.value)
    assert said in problem.problem


def test_refuses_a_command_gate_without_a_command() -> None:

    assert (
        "S3_SYNC_GATE_COMMAND" == problem_of(**SNAPSHOT, S3_SYNC_GATE="command").setting
    )


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


@pytest.mark.parametrize(
    ("slip", "right"),
    [("S3_SYNC_LAYUOT", "S3_SYNC_LAYOUT"), ("S3_SYNC_EXLUDE", "S3_SYNC_EXCLUDE"),
     ("S3_SYNC_BUCKET", "AWS_BUCKET"), ("S3_SYNC_INTERVAL", "INTERVAL"),
     ("S3_SYNC_KEY_PATH", "KEY_PATH"), ("S3_SYNC_MAXFAILURES", "S3_SYNC_MAX_FAILURES")],
)  # fmt: skip
def test_suggests_the_right_name_for_a_misspelled_one(slip: str, right: str) -> None:
    assert (
        f"is not a setting; did you mean {right}?" == problem_of(**{slip: "x"}).problem
    )


def test_names_all_missing_settings_and_a_variable_that_may_be_meant() -> None:
    bucket, path = raised(
        SettingsError, load_settings, {"AWS_BUKET": "a-bucket"}
    ).problems

    assert ("AWS_BUCKET", "DEST_PATH") == (bucket.setting, path.setting)
    assert bucket.problem.endswith("(AWS_BUKET is set: is it a typo?)")


@pytest.mark.parametrize("slip", sorted(INSTEAD))
def test_a_wrong_name_of_key_path_does_not_select_the_whole_bucket(slip: str) -> None:
    without = {name: value for name, value in EXAMPLE.items() if name != "KEY_PATH"}
    error = raised(SettingsError, load_settings, without | {slip: "dags"})

    assert [
        Problem(slip, None, "is not a setting; did you mean KEY_PATH?")
    ] == error.problems
    assert "" == load_settings(EXAMPLE | {slip: "dags", "KEY_PATH": "/"})[0].prefix


OF_OTHERS = [
    "AWS_ENDPOINT_URL_STS", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_REGION",
    "AWS_CA_BUNDLE", "AWS_PROFILE", "PATH", "HOSTNAME", "KUBERNETES_SERVICE_HOST", "S3_SYNC_PORT",
    "S3_SYNC_PORT_9811_TCP_ADDR", "S3_SYNC_SERVICE_PORT_HTTP", "S3_SYNC_EXPORTER_SERVICE_HOST",
    "AIRFLOW__CORE__DAGS_FOLDER", "LANG",
]  # fmt: skip


@pytest.mark.parametrize("value", ["x", "tcp://10.0.0.2:9811"])
def test_ignores_variables_of_other_programs(value: str) -> None:
    assert [] == load_settings(EXAMPLE | dict.fromkeys(OF_OTHERS, value))[1]
