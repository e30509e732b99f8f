"""Passwords in URLs are masked, however they are written; what is no secret stays readable."""

from __future__ import annotations

import logging

import pytest

from shardwave.common.errors import ShardwaveError
from shardwave.common.redact import mask_url, redact, redact_values

SECRET = "s3cret"

MASKED = {
    "postgresql://user:s3cret@host/db": "postgresql://user:***@host/db",
    "postgresql://user:s3c/ret@host/db": "postgresql://user:***@host/db",
    "postgresql://user:s3c@ret@host:5432/db": "postgresql://user:***@host:5432/db",
    "postgresql://user:s3c#ret@host/db": "postgresql://user:***@host/db",
    "postgresql://user:s3c:ret@host/db": "postgresql://user:***@host/db",
    "postgresql://user:s3c ret@host/db": "postgresql://user:***@host/db",
    "postgresql://user:s3c%40ret@host/db": "postgresql://user:***@host/db",
    "postgresql://user:s3c?ret@host/db": "postgresql://user:***",  # the text after `?` may be a query
    "postgresql://user:s3c?r=et@host/db": "postgresql://user:***",
    "postgresql://user:12/s3cret@host/db": "postgresql://user:***@host/db",
    "postgresql://us/er:s3cret@host/db": "postgresql://us/er:***@host/db",
    "postgresql://:s3cret@host/db": "postgresql://:***@host/db",
    "postgresql://user:s3cret": "postgresql://user:***",  # `@host` was forgotten
    "postgresql://user@host/db?password=s3cret": "postgresql://user@host/db?password=***",
    "postgresql://user@host/db?sslmode=require&sslpassword=s3cret": "postgresql://user@host/db?sslmode=require&sslpassword=***",
    "postgresql://user@host/db?PASSWORD=s3c%26ret;port=1": "postgresql://user@host/db?PASSWORD=***;port=1",
    "postgresql://user@host/db?p%61ssword=s3cret": "postgresql://user@host/db?p%61ssword=***",
    "postgresql://host:5432/db?password=s3c@ret": "postgresql://host:5432/db?password=***",
    "postgresql://user:s3cret@host/db?password=s3c@ret&port=1": "postgresql://user:***",
    "postgresql+psycopg://user:s3cret@/db?host=/run/sockets": "postgresql+psycopg://user:***@/db?host=/run/sockets",
    "mysql+pymysql://user:s3cret@host/db?charset=utf8": "mysql+pymysql://user:***@host/db?charset=utf8",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3D1%3BPWD%3Ds3cret": "mssql+pyodbc:///?odbc_connect=***",
    "redis://:s3cret@host:6379/0": "redis://***@host:6379/0",
    "redis://s3cret@host": "redis://***@host",
    "grpc://user:s3cret@host:13000": "grpc://***@host:13000",
    "user:s3cret@host/db": "***@host/db",  # no URL, but meant as one
    "host=db user=me password=s3cret": "host=db user=me password=***",
    "https://user:s3cret@host/esc50.zip#sha256=00ff": "https://***@host/esc50.zip#sha256=00ff",
    "https://s3cret@host/x": "https://***@host/x",
    "https://user:s3c/ret@host/x": "https://***@host/x",
    "https://host/x?X-Amz-Signature=s3cret&X-Amz-Credential=s3cret": "https://host/x?X-Amz-Signature=***&X-Amz-Credential=***",
    "https://host/x?sv=1&sig=s3cret": "https://host/x?sv=***&sig=***",
    "https://host/x?s3cret": "https://host/x?***",
    "https://host/x#access_token=s3cret": "https://host/x#***",
    "s3://key:s3cret@bucket/set": "s3://***@bucket/set",
}

PLAIN = [
    "postgresql://user@host/db",
    "postgresql://search@/postgres?host=/tmp/socket",
    "sqlite:///study.db",
    "sqlite:////data/a@b/study.db",
    "sqlite:///file:study.db?mode=ro&uri=true",
    "journal:/shared/a@b/study.journal",
    "grpc://host:13000",
    "grpc://HOST:PORT",
    "s3://bucket/sets/a@b",
    "http://localhost:9000/bucket/set",
    "http://[::1]:9000/bucket",
    "file:///data/a@b:c/set",
    "/data/a@b/set",
]


@pytest.mark.parametrize(("url", "shown"), MASKED.items())
def test_secrets_are_masked(url: str, shown: str) -> None:
    assert mask_url(url) == shown and mask_url(shown) == shown
    assert not any(part in shown for part in ("s3c", "ret@", "et@"))
    if "://" in url and " " not in url:
        assert shown in redact(f"could not open '{url}': timeout")
        assert str(ShardwaveError(f"could not open {url}: timeout")) == f"could not open {shown}: timeout"


@pytest.mark.parametrize("url", PLAIN)
def test_what_is_no_secret_stays(url: str) -> None:
    assert redact(f"{url}: no such file, see {url}") == f"{url}: no such file, see {url}"
    if not url.startswith("/"):
        assert mask_url(url) == url


@pytest.mark.parametrize(
    ("message", "url"),
    [
        (
            'could not translate host name "cret@host" to address',
            "postgresql://user:s3@cret@host/db",
        ),  # as psycopg misreads it
        ("password s3/cret is wrong", "postgresql://user:s3%2Fcret@host/db"),  # decoded
        ("parameter s3cret is unknown", "postgresql://user@host/db?password=s3cret"),
        ("bad connection string: host=x password='s3 cret' port=1", ""),
    ],
)
def test_what_a_driver_repeats_is_masked(message: str, url: str) -> None:
    shown = redact(message, url)
    assert "cret" not in shown and "***" in shown


def test_values_of_results_but_not_names_of_classes() -> None:
    value = {"set": "s3://k:s3cret@b/x", "n": [1, ("redis://s3cret@h",)], "classes": ["token=a", "b"]}
    assert redact_values(value) == {
        "set": "s3://***@b/x",
        "n": [1, ["redis://***@h"]],
        "classes": ["token=a", "b"],
    }


def test_logged_lines_and_tracebacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from shardwave.common import log

    monkeypatch.setenv(log.VERBOSE, "1")
    logger = logging.getLogger("shardwave")
    before = logger.handlers, logger.propagate, logger.level
    log.set_up()
    try:
        try:
            raise ValueError("redis://:s3cret@host")
        except ValueError:
            logger.exception("storage redis://:s3cret@host")
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])
    shown = capsys.readouterr().err
    assert shown.count("redis://***@host") >= 2 and "s3cret" not in shown
