"""How much memory a load and its Flat index take at their peak, against the vectors alone; in a process of its own, cold."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks import data
from benchmarks.figures import Ratio, at_most
from benchmarks.measure import Bench, read_peak, read_used, reset_peak
from benchmarks.product import Subject
from benchmarks.server import Usage, wait_for
from benchmarks.subjects import folder_for, plain
from tests.support.postgres import Address, Login

NAME = "memory"
LOAD = "load and Flat build, cold"


def run(bench: Bench) -> None:
    """Measure the peak above what the process had before, one process for each repetition."""
    plain(bench, "Flat")
    folder = folder_for(bench, NAME)
    address = bench.server.address
    order = {"host": address.host, "port": address.port, "admin": list(address.admin), "folder": str(folder)}
    answer = folder / "answer.json"
    ratios: list[float] = []

    def load() -> Usage:
        with answer.open("wb") as output:
            process = subprocess.Popen([sys.executable, "-m", "benchmarks.rows.memory"], stdin=subprocess.PIPE, stdout=output)
            assert process.stdin is not None  # noqa: S101 - it is a pipe
            with process.stdin as pipe:
                pipe.write(json.dumps(order).encode())
            used = wait_for(process)
        found = json.loads(answer.read_text())
        ratios.append((found["peak"] - found["base"]) / (found["live"] * data.DIMENSION * 4))
        return replace(used, peak_rss_bytes=found["peak"])

    for repetition in range(bench.repetitions):
        bench.measure(NAME, LOAD, load, repetition)
    bench.ratios.append(Ratio(NAME, bench.rows, f"peak of {LOAD}, above the process / the matrix", tuple(ratios), at_most(1.15)))


def main() -> None:
    """Load as told on the standard input, and write what it took to the standard output."""
    order = json.load(sys.stdin)
    address = Address(order["host"], order["port"], Login(*order["admin"]))
    subject = Subject.make(address, data.PLAIN, {"type": "Flat"}, Path(order["folder"]))
    base = read_used()
    reset_peak()
    belief = subject.load()
    json.dump({"base": base, "peak": read_peak(), "live": belief.view.live_rows}, sys.stdout)


if __name__ == "__main__":
    main()
