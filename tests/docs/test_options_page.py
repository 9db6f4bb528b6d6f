"""docs/options.md holds what the config dataclasses say today."""

from tests.docs.options_page import PAGE, text


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == text(), "run python -m tests.docs.options_page"
