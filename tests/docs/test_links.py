"""The links and paths of every page lead to something."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, name

# Code spans that name a file or folder of the repository.
PATH = re.compile(
    r"`((?:vit_jax|configs|tests|benchmarks|examples|docs)/[\w./-]*\w/?|\w+\.(?:cff|md|toml))`"
)


def anchors(page: Path) -> set[str]:
    """The headings' anchors, as forges and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_pages_and_headings(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if re.match(r"https?:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    for path in PATH.findall(page.read_text()):
        assert "NAME" in path or (ROOT / path).exists(), path


def test_the_menu_lists_every_page() -> None:
    menu = (ROOT / "mkdocs.yml").read_text()
    listed = re.findall(r"^ +- .*?([\w-]+\.md)$", menu, re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


def test_the_reading_order_has_todays_lengths() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| `(vit_jax/\S+\.py)` \| (\d+) \|", text, re.MULTILINE)
    assert len(rows) > 10
    for file, stated in rows:
        lines = len((ROOT / file).read_text().splitlines())
        # What a reader plans an hour by need not be exact.
        assert abs(lines - int(stated)) <= max(40, lines // 4), f"{file} has {lines} lines"
