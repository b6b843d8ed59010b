"""The page of metrics says what the code declares."""

from scripts.metrics_page import PAGE, render_page


def test_the_page_is_as_the_code_declares_it() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_page(), "run `make docs`"
