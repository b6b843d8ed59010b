"""Measure what the indexer costs: `python -m benchmarks load --rows 100k --reps 5`, or `make bench BENCH=load ROWS=100k REPS=5`.

Writes a table to the standard output, progress to the standard error, and one JSON line for each run to a file. Exits with 1 when a
ratio misses its bar, with 2 when this machine is too small.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks import machine, room
from benchmarks.figures import Growth, Ratio, Sample, Verdict, at_most, fit_growth, format_ratios, format_rows, format_samples, parse_rows
from benchmarks.measure import Bench
from benchmarks.rows import build, check, load, memory, repair, restart, sweep
from benchmarks.server import default_folder, forget, name_of, running_server

BENCHES: Final[dict[str, Callable[[Bench], None]]] = {
    module.NAME: module.run for module in (load, memory, check, sweep, build, repair, restart)
}
SIZES: Final = (10_000, 100_000, 1_000_000)
GROWING: Final = (
    (load.NAME, load.BARE),
    (load.NAME, load.DIGESTED),
    (check.NAME, check.STAMPS),
    (check.NAME, check.STORED),
    (sweep.NAME, sweep.SWEEP),
)
GROWTH_BAR: Final = at_most(1.05)
FORGET: Final = "forget"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for and return the exit code."""
    options = parse_arguments(arguments)
    if options.benches == [FORGET]:
        forget(options.folder)
        return 0
    benches = tuple(dict.fromkeys(options.benches))
    place = name_of(options.binaries)
    samples: list[Sample] = []
    ratios: list[Ratio] = []
    facts = machine.describe() | {"load before": machine.busy()}
    for rows in options.rows:
        lack = find_lack(benches, rows, options.folder, place)
        if lack:
            print(f"benchmarks: {lack}", file=sys.stderr)
            return 2
    for rows in options.rows:
        bench = run_size(benches, rows, options.reps, options.folder / place, options.binaries)
        facts |= {"Postgres": bench.postgres, "load at the end": machine.busy()}
        samples += bench.samples
        ratios += bench.ratios
    growths = [growth for name in GROWING if (growth := fit_growth(samples, *name, GROWTH_BAR))]
    write_lines(options.json, facts, samples, ratios, growths)
    print_tables(facts, samples, ratios, growths)
    print(f"\nall runs: {options.json}")
    return exit_code([ratio.verdict for ratio in ratios] + [growth.verdict for growth in growths])


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("benches", nargs="*", metavar="bench", help=f"{', '.join(BENCHES)}, or all; {FORGET} removes what is kept")
    parser.add_argument("--rows", type=_sizes, default=(1_000_000,), help="10k, 100k, 1M, or all of these one after the other")
    parser.add_argument("--reps", type=int, default=5, help="runs of each thing")
    parser.add_argument("--folder", type=Path, default=default_folder(), help="where tables are kept between runs")
    parser.add_argument("--binaries", type=Path, metavar="FOLDER", help="programs of another Postgres than that of the tests")
    parser.add_argument("--json", type=Path, help="file for one JSON line a run; by default a new one in the folder")
    options = parser.parse_args(arguments)
    unknown = [bench for bench in options.benches if bench not in (*BENCHES, "all", FORGET)]
    if unknown:
        parser.error(f"no such bench: {', '.join(unknown)}")
    if "all" in options.benches or not options.benches:
        options.benches = list(BENCHES)
    if options.reps < 1:
        parser.error("--reps: expected at least 1")
    options.json = options.json or options.folder / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"
    return options


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """Return 1 when a bar was missed. What was not judged speaks neither for nor against."""
    return 1 if Verdict.MISSED in verdicts else 0


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return SIZES if text == "all" else tuple(parse_rows(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def find_lack(benches: tuple[str, ...], rows: int, folder: Path, place: str) -> str | None:
    """Return a sentence when this machine is too small; what is kept from a former run needs no room again."""
    kept = room.used_disk(folder / place / format_rows(rows))
    return room.find_lack(benches, rows, room.free_disk(folder) + kept, room.free_memory())


def run_size(benches: Sequence[str], rows: int, repetitions: int, folder: Path, binaries: Path | None) -> Bench:
    """Run some rows of the benchmark at one size."""
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:7.1f} s] {text}", file=sys.stderr, flush=True)

    with running_server(folder / format_rows(rows), binaries) as server, tempfile.TemporaryDirectory(dir=folder, prefix="run-") as scratch:
        bench = Bench(server, server.version, rows, repetitions, Path(scratch), say)
        for name in benches:
            BENCHES[name](bench)
    return bench


def write_lines(
    path: Path, facts: dict[str, object], samples: Sequence[Sample], ratios: Sequence[Ratio], growths: Sequence[Growth]
) -> None:
    """Write one JSON line for the machine, each run, each ratio and each exponent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, object]] = [{"kind": "machine"} | facts]
    lines += [{"kind": "run"} | dataclasses.asdict(sample) | {"rows_per_second": sample.rows_per_second} for sample in samples]
    lines += [
        {"kind": "ratio"} | dataclasses.asdict(ratio) | {"bar": str(ratio.bar or ""), "median": ratio.median, "verdict": ratio.verdict}
        for ratio in ratios
    ]
    lines += [{"kind": "growth"} | dataclasses.asdict(growth) | {"bar": str(growth.bar), "verdict": growth.verdict} for growth in growths]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def print_tables(facts: dict[str, object], samples: Sequence[Sample], ratios: Sequence[Ratio], growths: Sequence[Growth]) -> None:
    """Write what people read."""
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    print(f"\n{format_samples(samples)}\n\n{format_ratios(ratios, growths)}")


if __name__ == "__main__":
    sys.exit(main())
