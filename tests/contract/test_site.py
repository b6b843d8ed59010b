"""The site is built without a warning, so each link and anchor leads somewhere; to show it, nothing is fetched from elsewhere."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = re.compile(
    r"(?<![\w/.-])((?:docs|charts|cluster|examples|crds|gitops)/[\w./-]+\.md|(?:README|SECURITY|CONTRIBUTING|CHANGELOG)\.md)(#[\w-]+)?"
)
FETCHING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NO_FETCH = {"search", "index", "next", "prev", "canonical"}  # links to pages


class Page(HTMLParser):
    """The anchors of a page, and what a browser fetches to show it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors.add(found.get("id") or "")
        if tag in FETCHING and found.get("rel") not in NO_FETCH:
            self.fetched.append(found.get(FETCHING[tag]) or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs/site", "-d", str(folder / "trees"), "-b", "html"]
    done = subprocess.run([*build, ".", str(folder / "html")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_it_is_built_without_a_warning_and_opens_at_its_front_page(site: Path) -> None:
    (target,) = re.findall(r"url=([^\"]+)", (site / "index.html").read_text())
    assert (site / target).is_file()


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    fetched = {(page.name, address) for page in pages for address in Page(page.read_text()).fetched if "//" in address}
    assert fetched == set()
    styles = [style.read_text() for style in site.rglob("*.css")]
    assert not [text for text in styles if re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", text)]


def test_addresses_that_lead_out_are_listed_and_safe(site: Path) -> None:
    addresses = (site / "external-links.txt").read_text().split()
    assert addresses
    assert [address for address in addresses if not address.startswith("https://")] == []


def test_each_page_that_code_or_chart_names_is_there(site: Path) -> None:
    """Such as in messages, descriptions of fields and comments of values: with its anchor, if it names one."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    named = {
        (name, *found)
        for name in files
        if name.endswith((".py", ".yaml", ".yml", ".tpl", ".txt", ".lua", ".toml", "Makefile", "Dockerfile"))
        and not name.startswith("tests/")
        for found in PAGE.findall((ROOT / name).read_text(encoding="utf-8"))
    }
    assert len(named) > 5
    for name, page, anchor in named:
        assert (ROOT / page).is_file(), f"{name} names {page}"
        built = site / Path(page).with_suffix(".html")
        assert not anchor or anchor.removeprefix("#") in Page(built.read_text()).anchors, f"{name} names {page}{anchor}"
