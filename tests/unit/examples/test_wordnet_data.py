"""The slice in examples/wordnet/data, and how synsets become its rows."""

import hashlib
from math import erf, sqrt
from pathlib import Path

import numpy as np
import pytest

from examples.wordnet import generate, load

DATA = load.DATA
LINE = '01236164 00 s 02 bigger(a) 0 large_scale 0 003 & 01234567 a 0000 | made of more; "a bigger house"  '


@pytest.fixture(scope="module")
def data() -> load.Slice:
    return load.read_slice()


def read_rows() -> list[list[str]]:
    return [line.split("\t") for line in (DATA / "rows.tsv").read_text(encoding="utf-8").splitlines()]


def test_slice_has_ten_thousand_unit_vectors_of_384_dimensions(data: load.Slice) -> None:
    assert data.vectors.shape == (10_000, 384)
    assert data.vectors.dtype == np.float32
    assert data.vectors.flags.c_contiguous
    assert np.abs(np.linalg.norm(data.vectors.astype(np.float64), axis=1) - 1).max() < 1e-4


def test_vectors_are_all_distinct(data: load.Slice) -> None:
    assert len({hashlib.sha256(vector.tobytes()).digest() for vector in data.vectors}) == len(data.vectors)


def test_ids_are_unique_ascending_and_sparse(data: load.Slice) -> None:
    gaps = np.diff(data.ids)

    assert (gaps > 0).all()
    assert np.median(gaps) > 100


def test_every_id_follows_from_its_synset() -> None:
    header, *rows = read_rows()

    assert header == list(generate.Synset._fields)
    for entity_id, synset, part_of_speech, _, _ in rows:
        assert int(entity_id) == generate.POS_DIGITS[part_of_speech] * 10**8 + int(synset[1:])
        assert synset[0] == generate.POS_LETTERS[part_of_speech]


def test_all_parts_of_speech_occur_in_the_slice_and_in_small_loads(data: load.Slice) -> None:
    small = load.plan_rows(data, 100)

    assert {row[2] for row in read_rows()[1:]} == set(generate.POS_DIGITS)
    assert {row.entity_id // 10**8 for row in small.embeddings if row.model == load.MODEL} == set(generate.POS_DIGITS.values())


def test_licence_stands_beside_the_data() -> None:
    licence = (DATA / "LICENSE-WordNet.txt").read_text(encoding="utf-8")

    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in licence
    assert "that the same appear on ALL copies" in licence


def test_slice_whose_files_do_not_fit_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.f16.npy", np.ones((2, 384), np.float16))
    (tmp_path / "rows.tsv").write_text("entity_id\tsynset\tpart_of_speech\tlemmas\tgloss\n1\tn1\tnoun\ta\tb\n")

    with pytest.raises(load.LoadError, match="expected 1 x 384"):
        load.read_slice(tmp_path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(load.LoadError, match=r"vectors\.f16\.npy: No such file"):
        load.read_slice(tmp_path)


def test_data_line_becomes_a_synset() -> None:
    assert generate.parse_synset(LINE, "adj") == generate.Synset(
        301236164, "a01236164", "adj", "bigger, large scale", 'made of more; "a bigger house"'
    )


def test_smaller_sample_is_part_of_a_larger_one_and_another_seed_is_another_sample() -> None:
    synsets = [generate.Synset(number, f"n{number:08}", "noun", "a", "b") for number in range(1000)]
    small = generate.choose_sample(synsets, 50, seed=1)

    assert set(small) < set(generate.choose_sample(synsets, 200, seed=1))
    assert small == sorted(small)
    assert small != generate.choose_sample(synsets, 50, seed=2)


@pytest.mark.parametrize("rows", [0, -1, 1001])
def test_impossible_sample_size_is_refused(rows: int) -> None:
    synsets = [generate.Synset(number, f"n{number:08}", "noun", "a", "b") for number in range(1000)]

    with pytest.raises(generate.GenerateError, match="expected 1 to 1000"):
        generate.choose_sample(synsets, rows, seed=1)


def test_batches_hold_every_row_once_and_one_length_each() -> None:
    tokens = [[0] * (1 + number % 7) for number in range(5000)]
    batches = list(generate.batches_of_equal_length(tokens))

    assert sorted(row for batch in batches for row in batch) == list(range(5000))
    assert all(len({len(tokens[row]) for row in batch}) == 1 for batch in batches)
    assert all(len(batch) * len(tokens[batch[0]]) <= generate.TOKENS_PER_BATCH for batch in batches)


def test_gelu_equals_the_error_function_of_the_standard_library() -> None:
    values = np.linspace(-6, 6, 1001, dtype=np.float32)
    expected = [0.5 * value * (1 + erf(value / sqrt(2))) for value in values.tolist()]

    assert np.abs(generate.gelu(values) - expected).max() < 2e-6


def test_missing_wordnet_is_one_sentence_that_names_the_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--out", str(tmp_path / "out"), "--wordnet", str(tmp_path)]) == 1

    assert "install Debian's wordnet-base" in capsys.readouterr().err
