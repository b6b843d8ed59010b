"""Runs things and measures them: wall time, CPU time on both sides, peak memory. Rivals run in turn, so that a noisy minute meets all."""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import Ratio, Sample, format_rows
from benchmarks.server import Server, Usage


@dataclass
class Bench:
    """One size: its server and options, and what was measured so far."""

    server: Server
    postgres: str  # its version
    rows: int
    repetitions: int
    folder: Path  # for files of this run
    say: Callable[[str], None]
    samples: list[Sample] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)  # what is dear to make, and used by several rows of the benchmark

    def keep(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what `make` made the first time it was asked for under this name."""
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    def measure(self, bench: str, subject: str, action: Callable[[], object], repetition: int = 0) -> Sample:
        """Run one thing and keep what it took. An action that returns `Usage` ran in a process of its own, whose use counts instead."""
        self.say(f"{bench} {format_rows(self.rows)}: {subject}, run {repetition + 1}")
        gc.collect()
        reset_peak()
        server_before = self.server.cpu_seconds()
        cpu, wall = time.process_time(), time.perf_counter()
        result = action()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        usage = result if isinstance(result, Usage) else None
        sample = Sample(
            bench=bench,
            rows=self.rows,
            subject=subject,
            repetition=repetition,
            wall_seconds=wall,
            client_cpu_seconds=usage.cpu_seconds if usage else cpu,
            server_cpu_seconds=self.server.cpu_seconds() - server_before,
            peak_rss_bytes=usage.peak_rss_bytes if usage else read_peak(),
        )
        self.samples.append(sample)
        return sample

    def measure_in_turn(
        self, bench: str, actions: Mapping[str, Callable[[], object]], repetitions: int | None = None
    ) -> dict[str, list[Sample]]:
        """Run things one after the other, round by round; one round before that is not counted."""
        for action in actions.values():
            action()
        measured: dict[str, list[Sample]] = {subject: [] for subject in actions}
        for repetition in range(repetitions or self.repetitions):
            for subject, action in actions.items():
                measured[subject].append(self.measure(bench, subject, action, repetition))
        return measured


def reset_peak() -> None:
    """Make the kernel forget the peak of this process's memory."""
    Path("/proc/self/clear_refs").write_text("5")


def read_peak() -> int:
    """Return the most memory that this process had in use since the last reset, bytes."""
    return _read_status("VmHWM")


def read_used() -> int:
    """Return the memory that this process has in use, bytes."""
    return _read_status("VmRSS")


def _read_status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"the kernel does not tell {name}")
