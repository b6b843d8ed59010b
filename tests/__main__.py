"""Run every kind of test: those of the indexer beside those of the operator and those on a node, as these mostly wait.

Says which part this machine can't run, and fails for it, after running the others.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cluster import binaries, packages, requirements
from cluster.errors import ClusterError
from cluster.process import SEARCH_PATH

QUICK = ("tests/unit", "tests/contract")
INDEXER = ("tests/integration/indexer", "tests/integration/benchmarks")
CONTROL_PLANE = ("tests/integration/operator", "tests/integration/cli")
NODE = ("tests/e2e",)

NO_TESTS: Final = 5  # exit code of pytest when a choice of tests leaves none
_COUNTS: Final = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|deselected)\b")

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


def split(folders: Sequence[str]) -> list[list[str]]:
    """Return the folders in groups that may run at the same time: what computes, what waits for an API server, what waits for a node."""
    waiting = [[folder for folder in folders if folder in kind] for kind in (CONTROL_PLANE, NODE)]
    computing = [folder for folder in folders if folder not in (*CONTROL_PLANE, *NODE)]
    return [group for group in (computing, *waiting) if group]


class Run:
    """One pytest beside others: its lines are passed on as they come, with a letter before them that tells whose they are."""

    def __init__(self, letter: str, arguments: Sequence[str]) -> None:
        self.counts: Counter[str] = Counter()
        self._letter = letter
        command = [sys.executable, "-m", "pytest", *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        self._reader = threading.Thread(target=self._pass_on)
        self._reader.start()

    def wait(self) -> int:
        """Return its exit code, once it has ended."""
        code = self._process.wait()
        self._reader.join()
        return code

    def _pass_on(self) -> None:
        assert self._process.stdout is not None
        last = ""
        with self._process.stdout as lines:
            for line in lines:
                print(f"{self._letter} {line}", end="", flush=True)
                last = line if line.strip() else last
        self.counts.update({word: int(number) for number, word in _COUNTS.findall(last)})


def run_side_by_side(groups: Sequence[Sequence[str]]) -> int:
    """Run a pytest for each list of arguments, all at the same time; return the first exit code that is not good."""
    started = time.monotonic()
    runs = [Run(letter, arguments) for letter, arguments in zip("ABC", groups, strict=False)]
    codes = [run.wait() for run in runs]
    total = sum((run.counts for run in runs), Counter[str]())
    print(f"==== {', '.join(f'{number} {word}' for word, number in total.items())} in {time.monotonic() - started:.0f} s ====", flush=True)
    if all(code == NO_TESTS for code in codes):
        return NO_TESTS
    return next((code for code in codes if code not in (0, NO_TESTS)), 0)


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
    code = run_side_by_side([[*selection, *for_pytest, *group] for group in split(folders)])
    for sentence in sentences:
        print(f"make: {sentence}", file=sys.stderr)
    return code or (3 if sentences else 0)


if __name__ == "__main__":
    sys.exit(main())
