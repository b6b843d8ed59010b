"""No password that is planted comes through, and what is none does."""

import json
import time

import pytest

from vectorindex_cli.redact import redact_object, redact_text

CANARY = "Zx9-canary.Q7"
PLANTED = (
    "postgres://reader:{}@pg:5432/app",
    "connecting to postgresql+psycopg://reader:{}/x@pg/app failed",
    "password={}",
    "PGPASSWORD='{} {}'",
    'level=info msg="x" password="{} and more {}"',
    '{{"password": "{}", "host": "pg"}}',
    '{{\\"db_password\\": \\"{}\\"}}',
    "passwd: {}",
    "db:\n  password: |\n    {}\n    {}\n  port: 1\n",
    "SECRET_KEY: {}",
    "SSLPASSWORD {}",
    "the password is {}",
    "http://x/path?u=postgres://reader:{}@pg/app",
    "postgres://reader:p@{}@pg:5432/app",
    "id.eyJ.eyJhbGciOiJSUzI1NiJ9.eyJ{}.sig".replace("{}", "x" * 20),
    "x-eyJeyJhbGciOiJSUzI1NiJ9.eyJ{}.sig".replace("{}", "x" * 20),
    "could not connect with password {}",
    "api_key = {}",
    "Authorization: Bearer {}{}",
    "Authorization: Basic {}{}",
    "curl -H 'authorization: {}'",
    "https://host/path?token={}&k=3",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n{}",
    "eyJhbGciOiJSUzI1NiJ9.eyJ{}.sig".replace("{}", "x" * 20),
)
HARMLESS = (
    "password authentication failed for user docs_reader",
    '{"credentialsSecretRef":{"name":"docs-reader"},"host":"pg.search.svc"}',
    "docs-index-0: 2 ghosts, 1 changed",
    "Consistent is False: docs-index-0: AuthenticationFailed",
    "http://docs-index.search.svc:8080/v1/indexes/docs/search",
    "asOf=2026-11-25T09:00:01.250Z rows=9500 root=9500:0123456789abcdef-fedcba9876543210",
)


@pytest.mark.parametrize("form", PLANTED)
def test_what_looks_like_a_credential_is_left_out_of_texts(form: str) -> None:
    redacted = redact_text(form.replace("{}", CANARY).replace("{{", "{").replace("}}", "}"))
    assert (CANARY in redacted, "x" * 20 in redacted, "(left out)" in redacted) == (False, False, True)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_tells_of_the_index_stays(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "piece", ["a.", "eyJ-", "a://b:", "://", "password=", "token  ", "-----BEGIN ", "bearer ", "eyJaaaaaaaa.", "secret\\"]
)
def test_a_log_made_for_it_does_not_hold_up_the_bundle(piece: str) -> None:
    """Time that grows with the square of the length would be minutes here, and days for a whole log."""
    began = time.monotonic()
    redact_text(piece * (400_000 // len(piece)))
    assert time.monotonic() - began < 20


def test_redacting_twice_changes_nothing_more() -> None:
    once = "\n".join(redact_text(form.replace("{}", CANARY)) for form in PLANTED)
    assert redact_text(once) == once


def test_objects_lose_values_of_variables_annotations_of_others_and_what_follows_a_flag() -> None:
    container = {
        "image": "indexer:1",
        "args": ["serve", "--db-password", CANARY, f"--token={CANARY}", "--config", "/etc/vx.yaml"],
        "env": [
            {"name": "EXTRA", "value": CANARY},
            {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "docs-reader", "key": "password"}}},
        ],
    }
    document = {
        "kind": "Pod",
        "metadata": {
            "name": "docs-index-0",
            "managedFields": [{"manager": "x"}],
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": json.dumps({"data": CANARY}),
                "example.com/note": CANARY,
                "note": CANARY,
                "vectorindex.dev/rebuild-requested-at": "2026-11-25T09:00:00Z",
                "deployment.kubernetes.io/revision": "3",
            },
        },
        "spec": {"containers": [container], "volumes": [{"secret": {"secretName": "docs-reader"}}], "dbPassword": CANARY},
    }
    redacted = redact_object(document)
    assert CANARY not in json.dumps(redacted)
    assert redacted["spec"]["volumes"] == [{"secret": {"secretName": "docs-reader"}}]
    assert redacted["spec"]["containers"][0]["args"][-2:] == ["--config", "/etc/vx.yaml"]
    assert redacted["spec"]["containers"][0]["env"][1]["valueFrom"]["secretKeyRef"]["name"] == "docs-reader"
    assert redacted["metadata"]["annotations"]["vectorindex.dev/rebuild-requested-at"] == "2026-11-25T09:00:00Z"
    assert redacted["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    assert "managedFields" not in redacted["metadata"]


def test_headers_lists_and_who_wrote_what_are_left_out_wherever_they_stand() -> None:
    probe = {"httpGet": {"path": "/", "httpHeaders": [{"name": "X-API-Key", "value": CANARY}]}}
    inner = {"metadata": {"managedFields": [{"manager": CANARY}], "name": "docs"}, "spec": {"probe": probe, "passwords": [CANARY]}}
    told = redact_object({"metadata": {"name": "docs", "managedFields": []}, "spec": {"template": inner}})
    assert CANARY not in json.dumps(told)
    assert told["spec"]["template"]["spec"]["probe"]["httpGet"]["httpHeaders"] == [{"name": "X-API-Key", "value": "(left out)"}]
    assert "managedFields" not in json.dumps(told)
