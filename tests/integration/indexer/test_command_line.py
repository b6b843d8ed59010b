"""The command as people and the kubelet run it: a process of its own, on a real Postgres."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from tests.support.damage import damage_both
from tests.support.keepalive import ask_until_closed
from tests.support.postgres import MakeWordnetDatabase, WordnetDatabase
from tests.support.replica import make_manifest, running_replica, wait_until, write_settings
from tests.support.serving import COMMAND, SECONDS, build_options, serving
from vectorindex_indexer import report
from vectorindex_indexer.config import Settings
from vectorindex_indexer.snapshot import MANIFEST


@pytest.fixture
def database(make_wordnet_database: MakeWordnetDatabase) -> WordnetDatabase:
    return make_wordnet_database(rows=500)


@pytest.fixture
def settings(database: WordnetDatabase, tmp_path: Path) -> Settings:
    return write_settings(tmp_path, make_manifest(database), database.create_reader())


def run(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *arguments, *build_options(settings)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


def save_index(settings: Settings) -> None:
    """Leave a proven index on disk."""
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
    assert (settings.data / MANIFEST).is_file()


def test_check_of_a_true_index_exits_0_and_says_what_it_compared(settings: Settings) -> None:
    result = run(settings, "check")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("default/docs: ok (Proven)\n")
    assert re.search(r"root digest  \d+:[0-9a-f]{16}-[0-9a-f]{16} ", result.stdout)


def test_check_of_a_wrong_saved_index_exits_1_names_the_drift_and_repairs_nothing(settings: Settings) -> None:
    save_index(settings)
    damage = damage_both(settings.data, missing=3, changed=0, ghosts=[], seed=1)
    (settings.data / ".partial-1").write_bytes(b"what a running server is writing")
    for _ in range(2):
        result = run(settings, "check", "-o", "json")
        assert result.returncode == 1, result.stderr
        status = msgspec.json.decode(result.stdout, type=report.Status)
        assert (status.proof.result, status.drift.missing) == ("drift", len(damage.missing))
        assert (settings.data / ".partial-1").is_file()


def test_check_that_may_not_log_in_exits_2_and_shows_no_password(settings: Settings) -> None:
    (settings.credentials / "password").write_text("canary-5f2e")
    result = run(settings, "check")
    assert result.returncode == 2
    assert "unknown (AuthenticationFailed)" in result.stdout
    assert "canary-5f2e" not in result.stdout + result.stderr


def test_a_wrong_manifest_exits_2_and_names_file_and_field(settings: Settings) -> None:
    settings.config.write_text(settings.config.read_text().replace("dimension: 384", "dimension: 0"))
    for command in ("check", "serve"):
        result = run(settings, command)
        assert result.returncode == 2
        assert f"{settings.config}: spec.index.dimension: " in result.stderr
        assert "Traceback" not in result.stderr


def test_a_taken_port_is_told_in_one_sentence(settings: Settings) -> None:
    with serving(settings) as one:
        result = run(settings, "serve", "--host", "127.0.0.1", "--search-port", str(one.search_port), "--ops-port", "0")
    assert result.returncode == 2
    assert "Address already in use" in result.stderr
    assert "Traceback" not in result.stderr


def test_serve_gets_ready_answers_and_ends_on_sigterm_without_failing_a_request(settings: Settings) -> None:
    body = json.dumps({"vector": [1.0] * 384, "k": 3}).encode()
    outcomes: list[int | str] = []
    with serving(settings, "--drain-seconds", "1") as one:
        wait_until("ready", lambda: one.get("/readyz")[0] == 200)

        arguments = (one.search_port, "/v1/indexes/docs/search", body, outcomes)
        clients = [threading.Thread(target=ask_until_closed, args=arguments) for _ in range(4)]
        for client in clients:
            client.start()
        wait_until("answers", lambda: len(outcomes) > 100)
        assert one.end() == 0
        for client in clients:
            client.join(timeout=SECONDS)
        assert [line["reason"] for line in one.find("stopped")] == ["SIGTERM"]
    assert set(outcomes) == {200}
    assert (settings.data / MANIFEST).is_file()


def test_the_process_writes_no_core_dump_and_each_log_line_is_json(settings: Settings) -> None:
    password = (settings.credentials / "password").read_text()
    with serving(settings, "--drain-seconds", "0", "--log-level", "debug") as one:
        wait_until("ready", lambda: one.get("/readyz")[0] == 200)
        limits = Path(f"/proc/{one.process.pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits)
        everything = b"".join(one.get(path)[1] for path in ("/metrics", "/v1/status", "/readyz")).decode()
        one.end(signal.SIGINT)
        logged = "".join(one.lines)
    assert all(json.loads(line)["level"] for line in logged.splitlines())
    assert password not in everything + logged


def test_a_thread_at_work_does_not_keep_the_process() -> None:
    script = (
        "import threading, time; from vectorindex_indexer.__main__ import end_soon; "
        "threading.Thread(target=time.sleep, args=(50,)).start(); end_soon(0.1)"
    )
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", script], timeout=40, check=True)
    assert time.monotonic() - started < 30


def test_the_version_is_told() -> None:
    result = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, timeout=SECONDS, check=True)
    assert re.fullmatch(r"vectorindex-indexer \d+\.\d+\.\d+\S*\n", result.stdout)
