import numpy as np

from benchmarks import data


def test_rows_are_the_same_at_every_size() -> None:
    small, large = (list(data.make_chunks(rows)) for rows in (1_500, 12_000))
    assert [len(chunk.ids) for chunk in large] == [10_000, 2_000]
    np.testing.assert_array_equal(small[0].ids, large[0].ids[:1_500])
    np.testing.assert_array_equal(small[0].vectors, large[0].vectors[:1_500])
    np.testing.assert_array_equal(small[0].deleted, large[0].deleted[:1_500])


def test_rows_have_ascending_ids_unit_vectors_and_dead_ones_among_them() -> None:
    chunks = list(data.make_chunks(20_000))
    ids = np.concatenate([chunk.ids for chunk in chunks])
    vectors = np.concatenate([chunk.vectors for chunk in chunks])
    deleted = np.concatenate([chunk.deleted for chunk in chunks])
    assert (np.diff(ids) > 0).all()
    assert (np.diff(ids) > 1).any()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert 0.04 < deleted.mean() < 0.06
    assert not np.array_equal(vectors[:10_000], vectors[10_000:])


def test_copy_form_of_a_row() -> None:
    chunk = data.Chunk(np.array([-2]), np.full((1, data.DIMENSION), 0.5, np.float32), np.array([True]))
    vector = b"\x00\x00\x00\x3f" * data.DIMENSION
    fields = [(-2).to_bytes(8, "big", signed=True), vector, b"bench", b"\x01"]
    assert data.to_copy(chunk) == b"\x00\x04" + b"".join(len(field).to_bytes(4, "big") + field for field in fields)
