"""How a support bundle is written."""

import tarfile
from pathlib import Path

import pytest

from tests.unit.cli.documents import load, read_at
from vectorindex_cli import bundle
from vectorindex_cli.bundle import Bundle
from vectorindex_cli.errors import CliError, UsageError


def make() -> Bundle:
    one = Bundle()
    one.add_text("pods/docs-index-0/indexer.log", "password=hunter2\n")
    one.add_object("vectorindex.yaml", {"kind": "VectorIndex", "metadata": {"name": "docs"}})
    one.note("events in search", "403 forbidden")
    return one


def test_an_archive_holds_the_files_in_one_folder_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "docs.tar.gz"
    assert bundle.write(make(), path) == path.stat().st_size
    assert path.stat().st_mode & 0o077 == 0
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["docs/pods/docs-index-0/indexer.log", "docs/vectorindex.yaml"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_written_where_no_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "docs"
    bundle.write(make(), path)
    assert (path / "pods" / "docs-index-0" / "indexer.log").read_text() == "password=(left out)\n"
    assert path.stat().st_mode & 0o077 == 0


def test_what_objects_are_called_leads_nowhere_else(tmp_path: Path) -> None:
    """The API server allows no such names; but who asks for help may have been led to another's server."""
    one = Bundle()
    for place, name in enumerate(("../../../etc", "/etc/passwd", "a/../../..", "a\\..\\b", "..", "\udc80")):
        one.add_text(f"{place}/{name}", "x\n")
        one.add_object(f"{place}-{name}.yaml", {"kind": "\udc80"})
    inner = tmp_path / "inner"
    inner.mkdir()
    bundle.write(one, inner / "docs")
    assert list(tmp_path.iterdir()) == [inner]
    assert list(inner.iterdir()) == [inner / "docs"]
    assert not [part for name in one.files for part in name.split("/") if not part.strip(".")]


def test_an_archive_does_not_go_through_a_link_that_lies_in_wait(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("dear to somebody")
    (tmp_path / ".docs.tar.gz.partial").symlink_to(victim)
    bundle.write(make(), tmp_path / "docs.tar.gz")
    assert victim.read_text() == "dear to somebody"
    assert (tmp_path / "docs.tar.gz").stat().st_mode & 0o077 == 0


def test_the_contents_page_names_each_file_and_what_could_not_be_read() -> None:
    page = bundle.describe(make(), load("healthy"), read_at("healthy"))
    assert "pods/docs-index-0/indexer.log" in page
    assert "events in search: 403 forbidden" in page


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    taken = tmp_path / "taken.tar.gz"
    taken.write_text("dear to somebody")
    with pytest.raises(UsageError, match="is there already"):
        bundle.choose_path(str(taken), load("healthy"), read_at("healthy"))
    chosen = bundle.choose_path(None, load("healthy"), read_at("healthy"))
    assert chosen.name == f"vectorindex-search-docs-{read_at('healthy'):%Y%m%dT%H%M%SZ}.tar.gz"


def test_what_can_not_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="can't write"):
        bundle.write(make(), tmp_path / "absent" / "docs.tar.gz")
    assert list(tmp_path.iterdir()) == []
