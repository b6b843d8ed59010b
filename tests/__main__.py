"""Run every kind of test in one pytest session; say which part this machine can't run, and fail for it, after running the others."""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster import binaries, packages, requirements
from cluster.errors import ClusterError
from cluster.process import SEARCH_PATH

QUICK = ("tests/unit", "tests/contract")
INDEXER = ("tests/integration/indexer", "tests/integration/benchmarks")
CONTROL_PLANE = ("tests/integration/operator",)
NODE = ("tests/e2e",)


INDEXER_PACKAGES = (
    packages.Package("openssl", lambda: shutil.which("openssl") is not None, "certificates of tests"),
    packages.Package("postgresql", lambda: any(Path("/usr/lib/postgresql").glob("*/bin/postgres")), "a Postgres that knows TLS"),
    packages.Package("pgbouncer", lambda: shutil.which("pgbouncer", path=SEARCH_PATH) is not None, "a pooler before Postgres"),
)
"""Debian's packages that the indexer's tests need."""


def choose_folders(*, external: bool, control_plane_missing: str | None, node_missing: str | None) -> tuple[list[str], list[str]]:
    """Return the folders to run and a sentence for each part that can't run here."""
    folders, sentences = [*QUICK, *INDEXER], []
    for paths, missing in ((CONTROL_PLANE, control_plane_missing), (NODE, None if external else node_missing)):
        if missing is None:
            folders.extend(paths)
        else:
            sentences.append(f"{', '.join(paths)} did not run: {missing}")
    return folders, sentences


def prepare_indexer() -> str | None:
    """Install what the indexer's tests need where that can be done; else return a sentence that says how."""
    absent = packages.missing_packages(INDEXER_PACKAGES)
    if not absent:
        return None
    try:
        packages.install(INDEXER_PACKAGES)
    except ClusterError as error:
        return f"some of {INDEXER[0]} can't pass: {error}"
    return None


def prepare() -> None:
    """Install and build what clusters need: here it shows its progress, in a test pytest would keep silent for minutes."""
    if packages.missing_packages() and packages.can_install():
        packages.install()
    binaries.ensure()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests and return the exit code: that of pytest, or 3 when all was well but a part could not run."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--slow", action="store_true", help="the full form of the long tests, too")
    options, for_pytest = parser.parse_known_args(arguments)
    no_control_plane = requirements.missing_for_control_plane()
    if no_control_plane is None:
        try:
            prepare()
        except ClusterError as error:
            no_control_plane = str(error)
    folders, sentences = choose_folders(
        external=os.environ.get("CLUSTER") == "external",
        control_plane_missing=no_control_plane,
        node_missing=no_control_plane or requirements.missing(),
    )
    if (no_packages := prepare_indexer()) is not None:
        sentences.append(no_packages)
    selection = [] if options.slow else ["-m", "not slow"]
    code = int(pytest.main([*selection, *for_pytest, *folders]))
    for sentence in sentences:
        print(f"make: {sentence}", file=sys.stderr)
    return code or (3 if sentences else 0)


if __name__ == "__main__":
    sys.exit(main())
