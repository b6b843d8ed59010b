"""A process that is told to end while it still loads its modules ends."""

import signal
import subprocess
import sys

# Not -SIGTERM, as a process without a handler would: process 1 of a container would then go on.
LOADING = """
import os, signal, sys, types

loading = types.ModuleType("vectorindex_indexer.__main__")
loading.main = lambda: os.kill(os.getpid(), signal.SIGTERM) or signal.pause()
sys.modules[loading.__name__] = loading
from vectorindex_indexer.entry import main
heavy = {"faiss", "numpy", "psycopg"} & set(sys.modules)
assert not heavy, f"loaded before the signal is handled: {heavy}"
main()
"""


def test_a_process_told_to_end_while_it_loads_ends_by_its_own_hand() -> None:
    done = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
