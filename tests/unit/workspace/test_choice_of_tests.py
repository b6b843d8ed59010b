from pathlib import Path

import pytest

from tests.__main__ import NO_TESTS, choose_folders, run_side_by_side, split


def test_everything_runs_where_a_cluster_can() -> None:
    folders, sentences = choose_folders(external=False, control_plane_missing=None, node_missing=None)
    assert folders[-1] == "tests/e2e"
    assert sentences == []


def test_a_part_that_cannot_run_is_named_with_its_reason_and_the_others_run() -> None:
    folders, sentences = choose_folders(external=False, control_plane_missing=None, node_missing="it needs root")
    assert folders == [
        "tests/unit",
        "tests/contract",
        "tests/integration/indexer",
        "tests/integration/benchmarks",
        "tests/integration/operator",
        "tests/integration/cli",
    ]
    assert sentences == ["tests/e2e did not run: it needs root"]


def test_an_external_cluster_needs_nothing_of_this_machine() -> None:
    folders, sentences = choose_folders(external=True, control_plane_missing="this is Darwin", node_missing="this is Darwin")
    assert "tests/e2e" in folders
    assert sentences == ["tests/integration/operator, tests/integration/cli did not run: this is Darwin"]


def test_what_waits_for_clusters_runs_beside_the_rest() -> None:
    folders, _ = choose_folders(external=False, control_plane_missing=None, node_missing=None)
    computing, *waiting = split(folders)
    assert waiting == [["tests/integration/operator", "tests/integration/cli"], ["tests/e2e"]]
    assert sorted(computing + [folder for group in waiting for folder in group]) == sorted(folders)
    assert split(computing) == [computing]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_good.py").write_text("def test_good():\n    pass\n")
    (tmp_path / "test_bad.py").write_text("def test_bad():\n    assert False\n")
    return tmp_path


@pytest.mark.parametrize(
    ("files", "chosen", "expected"),
    [
        (("test_good.py", "test_good.py"), "test", (0, "2 passed")),
        (("test_good.py", "test_bad.py"), "test", (1, "1 passed, 1 failed")),
        (("test_bad.py", "test_good.py"), "test", (1, "1 failed, 1 passed")),
        (("test_good.py", "test_bad.py"), "good", (0, "1 passed")),
        (("test_good.py", "test_bad.py"), "none_of_them", (NO_TESTS, "2 deselected")),
    ],
)
def test_a_failure_of_one_group_is_one_of_the_whole(
    folder: Path, files: tuple[str, str], chosen: str, expected: tuple[int, str], capfd: pytest.CaptureFixture[str]
) -> None:
    common = ["-p", "no:cacheprovider", "-c", str(folder / "pytest.ini"), "-k", chosen]
    code = run_side_by_side([[*common, str(folder / file)] for file in files])
    lines = capfd.readouterr().out.splitlines()
    assert code == expected[0]
    assert expected[1] in lines[-1]
    assert {line[:2] for line in lines[:-1]} == {"A ", "B "}
