"""Pictures of dashboards: small, complete, and with holes where nothing is known."""

import io
import math
from pathlib import Path

import pytest
from PIL import Image

from scripts.dashboards.boards import BOARDS, load
from scripts.dashboards.parts import Board
from scripts.previews import draw, record
from tests.support.recordings import SPAN, make_recording


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_dashboard_is_drawn_small_enough_to_be_read_with_a_page(board: Board) -> None:
    drawn = draw.draw(load(board), make_recording())
    assert len(drawn) < 150_000
    width, height = Image.open(io.BytesIO(drawn)).size
    assert width == draw.WIDTH
    assert height > width / 2


def test_an_answer_without_series_leaves_words_and_no_line() -> None:
    recording = make_recording()
    nothing: dict[str, list[record.Series]] = {query: [] for query in (*recording.ranges, *recording.instants)}
    board = load(BOARDS[-1])
    assert draw.draw(board, record.Recording(SPAN, nothing, nothing)) != draw.draw(board, recording)


def test_what_is_picked_of_a_dashboard_stands_close_together() -> None:
    picked = draw.pick(load(BOARDS[0]), ("State", "Drift and repair"))["panels"]
    assert [panel["title"] for panel in picked if panel["type"] == "row"] == ["State", "Drift and repair"]
    ends = {panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in picked}
    assert {panel["gridPos"]["y"] for panel in picked} <= ends | {0}


def test_a_line_has_a_hole_where_its_series_has_none() -> None:
    _, values = draw.split([(0, 1.0), (5, 2.0), (20, 3.0)], SPAN)
    assert [value if math.isfinite(value) else None for value in values] == [1, 2, None, 3]


def test_states_of_equal_value_are_one_bar_unless_something_was_missing_between() -> None:
    start = SPAN.start
    points = [(start, 0.0), (start + 5, 0.0), (start + 10, 2.0), (start + 30, 2.0)]
    bars = [(since - start, until - start, value) for since, until, value in draw.merge(points, SPAN)]
    assert bars == [(0, 10, 0), (10, 15, 2), (30, 35, 2)]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.995, "percentunit", "99.5 %"),
        (0.0004, "s", "400 µs"),
        (90, "s", "1.5 min"),
        (0, "s", "0 s"),
        (300 * 2**20, "bytes", "300 MiB"),
        (24_123, "locale", "24,123"),
        (0.25, "suffix: rows/s", "0.25 rows/s"),
    ],
)
def test_values_are_told_with_their_unit(value: float, unit: str, text: str) -> None:
    assert draw.format_value(value, unit) == text


def test_a_recording_is_read_back_as_it_was_kept(tmp_path: Path) -> None:
    recording = make_recording()
    record.write(recording, tmp_path / "recording.json")
    assert record.read(tmp_path / "recording.json") == recording
