from tests.__main__ import choose_folders


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
    ]
    assert sentences == ["tests/e2e did not run: it needs root"]


def test_an_external_cluster_needs_nothing_of_this_machine() -> None:
    folders, sentences = choose_folders(external=True, control_plane_missing="this is Darwin", node_missing="this is Darwin")
    assert "tests/e2e" in folders
    assert sentences == ["tests/integration/operator did not run: this is Darwin"]
