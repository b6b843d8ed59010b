"""`make try` does what the README says, from nothing to its last step, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.replica import wait_until

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "examples.wordnet.laptop"]


def folders(temporary: Path) -> list[str]:
    return [path.name for path in temporary.iterdir() if path.name.startswith("vectorindex-")]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A short path, as a socket of Postgres lies below it; open to the user that Postgres runs as when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="vt") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_every_step_of_the_laptop_start_holds(temporary: Path) -> None:
    environment = os.environ | {"TMPDIR": str(temporary)}

    done = subprocess.run([*COMMAND, "--once"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False)

    assert done.returncode == 0, done.stderr + done.stdout
    assert "found before serving, repaired, compared again, proven" in done.stdout
    assert "0 answered from the wrong index" in done.stdout
    assert "live rows, all equal" in done.stdout
    assert "tombstoned ids found: 0, proven: True" in done.stdout
    assert folders(temporary) == []


def test_it_runs_on_until_ctrl_c_and_then_ends_all_it_started(temporary: Path, tmp_path: Path) -> None:
    log = tmp_path / "output"
    with log.open("wb") as output:
        process = subprocess.Popen(COMMAND, cwd=ROOT, env=os.environ | {"TMPDIR": str(temporary)}, stdout=output, stderr=output)
    try:
        wait_until("the last step", lambda: "Ctrl-C ends everything" in log.read_text() or process.poll() is not None, 180)
        assert process.poll() is None, log.read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert log.read_text().endswith("ended\n")
    assert folders(temporary) == []
