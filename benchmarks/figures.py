"""What is made of measurements: ratios with their spread, whether they keep their bars, and how cost grows. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import median
from typing import Final

BAR_ROWS: Final = 1_000_000
"""From this size on bars are judged: below it, what costs the same at any size (a connection, a transaction) decides."""


@dataclass(frozen=True)
class Sample:
    """One run of one thing."""

    bench: str
    rows: int
    subject: str
    repetition: int
    wall_seconds: float
    client_cpu_seconds: float
    server_cpu_seconds: float
    peak_rss_bytes: int

    @property
    def rows_per_second(self) -> float:
        """Rows of the table by wall time."""
        return self.rows / self.wall_seconds if self.wall_seconds > 0 else math.inf

    def followed_by(self, other: "Sample", subject: str) -> "Sample":
        """Return what both took together, under a name of its own."""
        return replace(
            self,
            subject=subject,
            wall_seconds=self.wall_seconds + other.wall_seconds,
            client_cpu_seconds=self.client_cpu_seconds + other.client_cpu_seconds,
            server_cpu_seconds=self.server_cpu_seconds + other.server_cpu_seconds,
            peak_rss_bytes=max(self.peak_rss_bytes, other.peak_rss_bytes),
        )


class Side(StrEnum):
    """On which side of its bar a ratio must lie."""

    AT_LEAST = ">="
    AT_MOST = "<="


@dataclass(frozen=True)
class Bar:
    """What a ratio must keep, and from which number of rows on it is judged."""

    side: Side
    value: float
    from_rows: int = BAR_ROWS

    def is_kept(self, ratio: float) -> bool:
        """Whether a ratio lies on the right side. NaN never does."""
        return ratio >= self.value if self.side is Side.AT_LEAST else ratio <= self.value

    def __str__(self) -> str:
        return f"{self.side} {self.value:g}"


def at_least(value: float, *, from_rows: int = BAR_ROWS) -> Bar:
    """Return a bar that ratios must reach."""
    return Bar(Side.AT_LEAST, value, from_rows)


def at_most(value: float, *, from_rows: int = BAR_ROWS) -> Bar:
    """Return a bar that ratios must not pass."""
    return Bar(Side.AT_MOST, value, from_rows)


class Verdict(StrEnum):
    """What is said of a figure."""

    KEPT = "kept"
    MISSED = "MISSED"
    NOT_JUDGED = "-"  # it has no bar, or the bar is for larger tables


@dataclass(frozen=True)
class Ratio:
    """Ratios of one kind, one for each repetition."""

    bench: str
    rows: int
    name: str
    values: tuple[float, ...]
    bar: Bar | None = None

    @property
    def median(self) -> float:
        """The one that is judged."""
        return median(self.values)

    @property
    def verdict(self) -> Verdict:
        """Whether the median keeps the bar."""
        if self.bar is None or self.rows < self.bar.from_rows:
            return Verdict.NOT_JUDGED
        return Verdict.KEPT if self.bar.is_kept(self.median) else Verdict.MISSED


def make_ratio(name: str, above: Sequence[Sample], below: Sequence[Sample], bar: Bar | None = None) -> Ratio:
    """Divide wall times, those of one round by each other. Where one side ran less often, its median stands for all its runs.

    Raises ValueError where one side was not measured.
    """
    if not above or not below:
        raise ValueError(f"{name}: nothing was measured on one side")
    bench, rows = below[0].bench, below[0].rows
    tops, bottoms = [sample.wall_seconds for sample in above], [sample.wall_seconds for sample in below]
    if len(tops) != len(bottoms):
        if len(tops) < len(bottoms):
            tops = [median(tops)] * len(bottoms)
        else:
            bottoms = [median(bottoms)] * len(tops)
    return Ratio(bench, rows, name, tuple(top / bottom for top, bottom in zip(tops, bottoms, strict=True)), bar)


@dataclass(frozen=True)
class Growth:
    """How the cost of one thing grows: it is about rows to the power of `exponent`."""

    bench: str
    subject: str
    sizes: tuple[int, ...]
    exponent: float
    bar: Bar

    @property
    def verdict(self) -> Verdict:
        """Whether the exponent keeps the bar; judged when the largest size is one that bars are for."""
        if max(self.sizes) < self.bar.from_rows:
            return Verdict.NOT_JUDGED
        return Verdict.KEPT if self.bar.is_kept(self.exponent) else Verdict.MISSED


def fit_exponent(costs: Mapping[int, float]) -> float:
    """Return the slope of log cost over log rows, by least squares. Raise ValueError for fewer than two sizes or a cost of zero."""
    if len(costs) < 2 or min(costs.values()) <= 0:
        raise ValueError(f"expected at least two sizes with a cost above zero, got {dict(costs)}")
    points = [(math.log(rows), math.log(cost)) for rows, cost in costs.items()]
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def fit_growth(samples: Iterable[Sample], bench: str, subject: str, bar: Bar) -> Growth | None:
    """Fit the growth of one thing's median wall time over the sizes it was measured at; None for fewer than two sizes."""
    by_size: dict[int, list[float]] = {}
    for sample in samples:
        if (sample.bench, sample.subject) == (bench, subject):
            by_size.setdefault(sample.rows, []).append(sample.wall_seconds)
    if len(by_size) < 2:
        return None
    return Growth(bench, subject, tuple(sorted(by_size)), fit_exponent({rows: median(seconds) for rows, seconds in by_size.items()}), bar)


# --- tables


def format_samples(samples: Sequence[Sample]) -> str:
    """Write a table of what was measured, medians over the repetitions."""
    groups: dict[tuple[str, int, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.bench, sample.rows, sample.subject), []).append(sample)
    lines = [
        (
            bench,
            format_rows(rows),
            subject,
            str(len(runs)),
            f"{median(run.wall_seconds for run in runs):.4g}",
            f"{median(run.rows_per_second for run in runs):,.0f}",
            f"{median(run.client_cpu_seconds for run in runs):.2f}",
            f"{median(run.server_cpu_seconds for run in runs):.2f}",
            f"{max(run.peak_rss_bytes for run in runs) / 2**20:,.0f}",
        )
        for (bench, rows, subject), runs in groups.items()
    ]
    return format_table(("bench", "rows", "measured", "runs", "wall s", "rows/s", "client CPU s", "server CPU s", "peak RSS MiB"), lines)


def format_ratios(ratios: Sequence[Ratio], growths: Sequence[Growth]) -> str:
    """Write a table of ratios and exponents with their bars."""
    lines = [
        (
            ratio.bench,
            format_rows(ratio.rows),
            ratio.name,
            f"{ratio.median:.3g}",
            f"{min(ratio.values):.3g} to {max(ratio.values):.3g}",
            str(ratio.bar or ""),
            str(ratio.verdict),
        )
        for ratio in ratios
    ]
    lines += [
        (
            growth.bench,
            f"{format_rows(growth.sizes[0])} to {format_rows(growth.sizes[-1])}",
            f"growth exponent of {growth.subject}",
            f"{growth.exponent:.3g}",
            "",
            str(growth.bar),
            str(growth.verdict),
        )
        for growth in growths
    ]
    return format_table(("bench", "rows", "ratio", "median", "spread", "bar", "verdict"), lines)


def format_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table with aligned columns."""
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]

    def write(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([write(head), write(["-" * width for width in widths]), *map(write, lines)])


def format_rows(rows: int) -> str:
    """Write a number of rows as it is given on the command line."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if rows >= unit and rows % unit == 0:
            return f"{rows // unit}{letter}"
    return str(rows)


def parse_rows(text: str) -> int:
    """Read a number of rows such as `250`, `10k` or `1M`. Raise ValueError for anything else."""
    unit = {"k": 1_000, "M": 1_000_000}.get(text[-1:], 1)
    number = text if unit == 1 else text[:-1]
    if not number.isascii() or not number.isdigit() or int(number) == 0:
        raise ValueError(f"expected a number of rows such as 250, 10k or 1M, got {text!r}")
    return int(number) * unit
