"""
Hiding the secrets of the environment and airflow.cfg in the output of Airflow's processes.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sync_perm import passes
from sync_perm.airflow_config import AirflowConfig
from sync_perm.connection import parse_url

URL = "postgresql://airflow:s3cret-of-db@db/airflow"
LOCAL = "postgresql://airflow@db/airflow"


def redaction(folder: Path, url: str = URL, cfg: str = "", **environ: str) -> Callable[[str], str]:
    file = folder / "airflow.cfg"
    file.write_text(cfg)
    config = AirflowConfig({"AIRFLOW_CONFIG": str(file), **environ})
    return passes.redaction(config, parse_url("X", url))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"cannot connect to {URL}", "cannot connect to postgresql://airflow:***@db/airflow"),
        ("password s3cret-of-db is wrong", "password *** is wrong"),
        ("redis://:other@redis:6379/0 refused", "redis://:***@redis:6379/0 refused"),
        ("'sentinel://u:p/w@a;sentinel://u:p@w@b'", "'sentinel://u:***@b'"),
        ("db+mysql://u:pw@h/d and a@b", "db+mysql://u:***@h/d and a@b"),
        ("see https://host:8080/path", "see https://host:8080/path"),
        ("mail to a@b about http://host", "mail to a@b about http://host"),
    ],
    ids=["of the database", "alone", "no user", "several", "driver", "port", "mail"],
)
def test_hides_passwords_in_all_urls(tmp_path: Path, text: str, shown: str) -> None:
    assert shown == redaction(tmp_path)(text)


CONN = json.dumps({"conn_type": "http", "password": "pw-of-json", "host": "public-host"})


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("AIRFLOW__CORE__FERNET_KEY", "fernet-key=", "fernet-key="),
        ("AIRFLOW__WEBSERVER__SECRET_KEY", "flask-key", "flask-key"),
        ("AIRFLOW__SMTP__SMTP_PASSWORD", "smtp-pass", "smtp-pass"),
        ("AIRFLOW__API_AUTH__JWT_SECRET", "jwt-secret", "jwt-secret"),
        ("AIRFLOW__SENTRY__SENTRY_DSN", "https://key@sentry/1", "https://key@sentry/1"),
        ("AIRFLOW__CELERY__BROKER_URL", "redis://:a%2Fb-c-d-e@h", "a/b-c-d-e"),
        ("AIRFLOW__CELERY__RESULT_BACKEND", "db+postgresql://u:of-celery@h/d", "of-celery"),
        ("AIRFLOW_CONN_HTTP", CONN, "pw-of-json"),
        ("AWS_SECRET_ACCESS_KEY", "of-the-cloud", "of-the-cloud"),
        ("TLS_PRIVATE_KEY", "-----BEGIN\nMIIEvgIBADAN\n", "MIIEvgIBADAN"),
    ],
)
def test_hides_values_of_variables_with_secret_names(
    tmp_path: Path, name: str, value: str, secret: str
) -> None:
    hide = redaction(tmp_path, **{name: value})

    assert "is *** and public-host" == hide(f"is {secret} and public-host")


def test_hides_secret_options_of_airflow_cfg(tmp_path: Path) -> None:
    cfg = "[core]\nfernet_key = of-the-file\n[celery]\nresult_backend = a://u:in-the-url@h\n"

    assert "*** ***" == redaction(tmp_path, cfg=cfg)("of-the-file in-the-url")


def test_shows_short_and_public_values(tmp_path: Path) -> None:
    environ = {
        "AIRFLOW__CELERY__BROKER_URL": "redis://airflow:airflow@h",
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": LOCAL,
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "aws_default",
    }
    text = f"airflow with LocalExecutor and aws_default: {LOCAL}"

    assert text == redaction(tmp_path, LOCAL, **environ)(text)
