import math

import pytest

from benchmarks.__main__ import exit_code, parse_arguments
from benchmarks.figures import (
    BAR_ROWS,
    Bar,
    Growth,
    Ratio,
    Sample,
    Verdict,
    at_least,
    at_most,
    fit_exponent,
    fit_growth,
    format_ratios,
    format_rows,
    format_samples,
    make_ratio,
    parse_rows,
)


def make_samples(*seconds: float, bench: str = "load", subject: str = "ours", rows: int = BAR_ROWS) -> list[Sample]:
    return [
        Sample(bench, rows, subject, number, wall, client_cpu_seconds=0.5, server_cpu_seconds=0.25, peak_rss_bytes=2**20)
        for number, wall in enumerate(seconds)
    ]


def make(value: float, bar: Bar | None, rows: int = BAR_ROWS) -> Ratio:
    return Ratio("load", rows, "ours / limit", (value,), bar)


def test_runs_of_one_round_are_divided_by_each_other() -> None:
    ratio = make_ratio("ours / limit", make_samples(2.0, 30.0, 3.0), make_samples(1.0, 10.0, 2.0))
    assert ratio.values == (2.0, 3.0, 1.5)  # a noisy round meets both sides
    assert ratio.median == 2.0


def test_median_of_what_ran_less_often_stands_for_all_runs() -> None:
    assert make_ratio("rebuild / repair", make_samples(100.0), make_samples(1.0, 2.0, 4.0)).values == (100.0, 50.0, 25.0)
    assert make_ratio("repair / rebuild", make_samples(1.0, 2.0, 4.0), make_samples(100.0)).values == (0.01, 0.02, 0.04)


def test_what_two_things_took_together() -> None:
    build, prove = make_samples(100.0)[0], make_samples(8.0)[0]
    whole = build.followed_by(prove, "rebuild")
    assert (whole.subject, whole.wall_seconds, whole.client_cpu_seconds, whole.server_cpu_seconds) == ("rebuild", 108.0, 1.0, 0.5)


def test_nothing_measured_on_one_side_is_no_ratio() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        make_ratio("ours / limit", [], make_samples(1.0))


@pytest.mark.parametrize(
    ("value", "bar", "verdict"),
    [
        (0.5, at_least(0.5), Verdict.KEPT),
        (0.499, at_least(0.5), Verdict.MISSED),
        (1.15, at_most(1.15), Verdict.KEPT),
        (1.16, at_most(1.15), Verdict.MISSED),
        (math.nan, at_most(1.15), Verdict.MISSED),
        (math.nan, at_least(0.5), Verdict.MISSED),
        (99.0, None, Verdict.NOT_JUDGED),
    ],
)
def test_verdict_of_a_ratio(value: float, bar: Bar | None, verdict: Verdict) -> None:
    assert make(value, bar).verdict is verdict


def test_bars_are_judged_from_their_size_on() -> None:
    assert make(9.0, at_most(3), rows=BAR_ROWS - 1).verdict is Verdict.NOT_JUDGED
    assert make(9.0, at_most(3, from_rows=100_000), rows=100_000).verdict is Verdict.MISSED


def test_median_is_judged_and_not_the_best_or_worst_run() -> None:
    assert Ratio("load", BAR_ROWS, "x", (0.1, 0.6, 0.7), at_least(0.5)).verdict is Verdict.KEPT
    assert Ratio("load", BAR_ROWS, "x", (0.1, 0.4, 0.7), at_least(0.5)).verdict is Verdict.MISSED


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.26, 2.0])
def test_exponent_of_a_power_is_found(exponent: float) -> None:
    costs = {rows: 3e-6 * rows**exponent for rows in (10_000, 100_000, 1_000_000)}
    assert fit_exponent(costs) == pytest.approx(exponent)


@pytest.mark.parametrize("costs", [{}, {1000: 1.0}, {1000: 1.0, 2000: 0.0}])
def test_exponent_needs_two_sizes_and_costs(costs: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="at least two sizes"):
        fit_exponent(costs)


def test_growth_is_fitted_to_the_medians_of_one_thing() -> None:
    samples = [
        *make_samples(1.0, 1.0, 50.0, rows=100_000),
        *make_samples(20.0, rows=1_000_000),
        *make_samples(7.0, rows=1_000_000, subject="other"),
        *make_samples(7.0, rows=1_000_000, bench="check"),
    ]
    growth = fit_growth(samples, "load", "ours", at_most(1.05))
    assert growth is not None
    assert growth.sizes == (100_000, 1_000_000)
    assert growth.exponent == pytest.approx(math.log10(20))
    assert growth.verdict is Verdict.MISSED


def test_growth_needs_two_sizes_and_is_judged_with_the_largest() -> None:
    assert fit_growth(make_samples(1.0, 2.0), "load", "ours", at_most(1.05)) is None
    assert Growth("load", "ours", (10_000, 100_000), 2.0, at_most(1.05)).verdict is Verdict.NOT_JUDGED


def test_one_missed_bar_ends_with_1() -> None:
    assert exit_code([Verdict.KEPT, Verdict.MISSED, Verdict.NOT_JUDGED]) == 1
    assert exit_code([Verdict.KEPT, Verdict.NOT_JUDGED]) == 0


@pytest.mark.parametrize(("text", "rows"), [("250", 250), ("10k", 10_000), ("1M", 1_000_000), ("2500k", 2_500_000)])
def test_rows_are_read(text: str, rows: int) -> None:
    assert parse_rows(text) == rows


@pytest.mark.parametrize("text", ["", "k", "0", "-5", "1.5M", "1m", "ten", "²"])
def test_other_texts_are_no_rows(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number of rows"):
        parse_rows(text)


@pytest.mark.parametrize(("rows", "text"), [(250, "250"), (10_000, "10k"), (1_000_000, "1M"), (1_500_000, "1500k")])
def test_rows_are_written_as_they_are_read(rows: int, text: str) -> None:
    assert format_rows(rows) == text


def test_command_line() -> None:
    options = parse_arguments(["load", "check", "--rows", "all", "--reps", "3"])
    assert (options.benches, options.rows, options.reps) == (["load", "check"], (10_000, 100_000, 1_000_000), 3)
    assert parse_arguments([]).benches == ["load", "memory", "check", "sweep", "build", "repair", "restart"]
    assert parse_arguments([]).rows == (1_000_000,)


@pytest.mark.parametrize("arguments", [["laod"], ["--rows", "many"], ["--reps", "0"]])
def test_command_line_that_makes_no_sense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(arguments)
    assert ended.value.code == 2


def test_tables_tell_ratio_spread_bar_and_verdict() -> None:
    ratio = Ratio("load", BAR_ROWS, "speed", (0.4, 0.2, 0.3), at_least(0.5))
    growth = Growth("load", "ours", (10_000, 1_000_000), 1.0, at_most(1.05))
    assert [cell.strip() for cell in format_ratios([ratio], [growth]).splitlines()[2].split("|")[1:-1]] == [
        "load",
        "1M",
        "speed",
        "0.3",
        "0.2 to 0.4",
        ">= 0.5",
        "MISSED",
    ]
    assert "10k to 1M" in format_ratios([ratio], [growth])
    assert [cell.strip() for cell in format_samples(make_samples(2.0, 4.0)).splitlines()[2].split("|")[1:-1]] == [
        "load",
        "1M",
        "ours",
        "2",
        "3",
        "375,000",
        "0.50",
        "0.25",
        "1",
    ]
