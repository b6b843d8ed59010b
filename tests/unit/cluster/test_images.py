"""What an image build depends on, and the rules that our Dockerfiles keep."""

import re
from pathlib import Path

import pytest

from cluster.dockerfile import find_inputs, hash_inputs, is_ignored, parse_copied, parse_ignored
from cluster.errors import ClusterError
from cluster.images import archive_of, pip_settings
from cluster.paths import ROOT

DOCKERFILES = ("operator/Dockerfile", "indexer/Dockerfile", "examples/postgres/Dockerfile")


def make_context(folder: Path) -> Path:
    for name, text in {
        "Dockerfile": "ARG BASE=x\nFROM ${BASE} AS build\nCOPY a.txt src ./\nFROM ${BASE}\nCOPY --from=build /venv /venv\n",
        ".dockerignore": "**/__pycache__\n",
        "a.txt": "a",
        "src/b.py": "b",
        "src/__pycache__/b.pyc": "junk",
        "other.txt": "not copied",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def tag(folder: Path, arguments: dict[str, str] | None = None, base: str = "base") -> str:
    return hash_inputs(folder / "Dockerfile", find_inputs(folder, folder / "Dockerfile"), arguments or {}, base)


def test_only_what_the_context_gives_is_an_input(tmp_path: Path) -> None:
    assert list(find_inputs(make_context(tmp_path), tmp_path / "Dockerfile")) == ["a.txt", "src/b.py"]


def test_continued_lines_and_several_sources_are_read() -> None:
    assert parse_copied("COPY --chown=1:1 a \\\n  b /target/\nADD c d\n# COPY e f\nCOPY --from=x g h\n") == ["a", "b", "c"]


def test_the_tag_follows_every_input_and_nothing_else(tmp_path: Path) -> None:
    folder = make_context(tmp_path)
    first = tag(folder)
    (folder / "other.txt").write_text("changed")
    (folder / "src/__pycache__/b.pyc").write_text("changed")
    assert tag(folder) == first
    assert tag(folder, {"A": "1"}) != first
    assert tag(folder, base="another") != first
    (folder / "a.txt").chmod(0o755)
    assert tag(folder) != first
    (folder / "a.txt").chmod(0o644)
    (folder / "src/b.py").write_text("changed")
    assert tag(folder) != first


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM x\nCOPY gone.txt .\n")
    with pytest.raises(ClusterError, match=r"copies gone\.txt"):
        find_inputs(tmp_path, tmp_path / "Dockerfile")


@pytest.mark.parametrize(
    ("path", "ignored"),
    [(".git/config", True), ("a/__pycache__/x.pyc", True), ("a/b.pyc", True), ("src/git.py", False), ("a/.git/x", False)],
)
def test_ignored_paths(path: str, ignored: bool) -> None:
    assert is_ignored(path, parse_ignored("# comment\n.git\n**/__pycache__/\n**/*.pyc\n")) is ignored


def test_exceptions_in_dockerignore_are_refused_rather_than_misread() -> None:
    with pytest.raises(ClusterError, match="exceptions"):
        parse_ignored("*\n!a\n")


@pytest.mark.parametrize("name", ["check", "docker.io/library/x:1", "localhost/x", "localhost/../x:1"])
def test_only_images_built_here_have_an_archive(name: str) -> None:
    with pytest.raises(ClusterError, match="localhost/NAME:TAG"):
        archive_of(name)


def test_pip_settings_of_the_host_reach_the_build_but_not_its_folders() -> None:
    text, bundle = pip_settings("global.index-url='https://index.example/simple'\n:env:.find-links='/opt/x'\n:env:.cert='/ca.pem'\n")
    assert "index-url = https://index.example/simple" in text
    assert "find-links" not in text
    assert bundle == "/ca.pem"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfiles_are_ordinary_and_careful(name: str) -> None:
    text = (ROOT / name).read_text()
    instructions = [line for line in text.splitlines() if re.match(r"^[A-Z]+ ", line)]
    assert instructions[0] == "ARG BASE=docker.io/library/python:3.11-slim-bookworm"
    assert "FROM ${BASE}" in instructions
    assert "USER 65532:65532" in instructions
    assert re.search(r"^ENTRYPOINT \[", text, re.MULTILINE)
    assert not re.search(r"https?://|index-url|:latest", text)
    installs = [line for line in re.sub(r"\\\n", " ", text).splitlines() if "pip install" in line or "/python install" in line]
    assert installs
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)


@pytest.mark.parametrize("name", DOCKERFILES[:2])
def test_requirements_are_installed_before_our_own_code_is_copied(name: str) -> None:
    copied = parse_copied((ROOT / name).read_text())
    side = name.split("/", maxsplit=1)[0]
    assert copied == ["requirements/build.txt", f"requirements/{side}.txt", f"{side}/pyproject.toml", f"{side}/src"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_every_requirement_of_an_image_has_a_hash(name: str) -> None:
    for copied in parse_copied((ROOT / name).read_text()):
        if copied.endswith(".txt"):
            requirements = re.sub(r"\\\n", " ", (ROOT / copied).read_text()).splitlines()
            assert all("--hash=sha256:" in line for line in requirements if "==" in line), copied
