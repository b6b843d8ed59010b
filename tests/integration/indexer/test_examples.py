"""The demo's loader against a real Postgres."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psycopg
import pytest
import yaml

from examples.wordnet import load
from examples.wordnet.load import MODEL, OTHER_MODEL, Variant
from tests.support.postgres import Database, Login, MakeWordnetDatabase, WordnetDatabase

ROOT = Path(__file__).resolve().parents[3]
ROWS = 1000


def run_loader(database: Database, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run load.py as a user does."""
    return subprocess.run(
        [sys.executable, ROOT / "examples/wordnet/load.py", *arguments],
        env={"PATH": os.environ["PATH"]} | database.environment() | environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def scalar(database: Database, statement: str, *values: object) -> object:
    with database.admin_connect() as connection:
        row = connection.execute(statement.encode(), values).fetchone()
    assert row is not None
    return row[0]


def test_loader_loads_all_rows_and_prints_what_the_tables_hold(database: Database) -> None:
    done = run_loader(database)

    assert done.returncode == 0, done.stderr
    assert f"{MODEL}: 10,000 rows, 9,500 live, 500 tombstoned" in done.stdout
    assert f"{OTHER_MODEL}: 500 rows; 50 entities are live for it" in done.stdout
    assert scalar(database, "SELECT count(*) FROM embeddings WHERE model_name = %s", MODEL) == 10_000
    assert scalar(database, "SELECT count(DISTINCT entity_id) FROM faiss_metadata WHERE deleted AND model_name = %s", MODEL) == 500


def test_second_load_is_refused_and_changes_nothing(database: Database) -> None:
    assert run_loader(database, "--rows", "50").returncode == 0

    done = run_loader(database, "--rows", "60")

    assert done.returncode == 1
    assert (
        done.stderr == "load: table public.embeddings is there already and nothing was changed: give --replace to drop it and load anew\n"
    )
    assert scalar(database, "SELECT count(*) FROM embeddings WHERE model_name = %s", MODEL) == 50


@pytest.mark.parametrize("variant", list(Variant))
def test_replace_loads_anew_whatever_variant_was_there(database: Database, variant: Variant) -> None:
    assert run_loader(database, "--rows", "50").returncode == 0

    done = run_loader(database, "--rows", "60", "--replace", "--variant", variant)

    assert done.returncode == 0, done.stderr
    assert scalar(database, "SELECT count(*) FROM embeddings WHERE model_name = %s", MODEL) == 60


@pytest.mark.parametrize("variant", list(Variant))
def test_oracle_returns_the_live_rows_with_the_vectors_of_the_slice(make_wordnet_database: MakeWordnetDatabase, variant: Variant) -> None:
    database = make_wordnet_database(rows=ROWS, variant=variant)
    data = load.read_slice()
    dead = {entity for entity, model in load.plan_rows(data, ROWS).dead if model == MODEL}

    with database.admin_connect() as connection:
        ids, vectors = load.live_rows(connection, variant=variant)

    assert len(ids) == database.counts.live == 950
    assert not dead & set(ids.tolist())
    assert np.array_equal(vectors, data.vectors[np.searchsorted(data.ids, ids)])


def test_oracle_agrees_with_a_count_written_in_another_way(wordnet_database: WordnetDatabase) -> None:
    with wordnet_database.admin_connect() as connection:
        ids, _ = load.live_rows(connection)
    statement = """
        SELECT count(*) FROM embeddings
        WHERE model_name = %s
          AND entity_id NOT IN (SELECT entity_id FROM faiss_metadata WHERE model_name = %s AND deleted IS NOT FALSE)
    """
    expected = scalar(wordnet_database, statement, MODEL, MODEL)

    assert len(ids) == expected


def test_a_join_or_a_forgotten_model_filter_would_give_other_rows(wordnet_database: WordnetDatabase) -> None:
    join = "SELECT count(*) FROM embeddings e JOIN faiss_metadata m USING (entity_id, model_name) WHERE model_name = %s AND NOT m.deleted"
    any_model = """
        SELECT count(*) FROM embeddings e
        WHERE model_name = %s AND EXISTS (SELECT FROM faiss_metadata m WHERE m.entity_id = e.entity_id AND NOT m.deleted)
    """

    assert scalar(wordnet_database, join, MODEL) != wordnet_database.counts.live
    assert scalar(wordnet_database, any_model, MODEL) != wordnet_database.counts.live


@pytest.mark.parametrize("wordnet_database", [200], indirect=True)
def test_fixture_offers_as_many_rows_as_asked_for(wordnet_database: WordnetDatabase) -> None:
    assert wordnet_database.counts.rows == 200
    assert scalar(wordnet_database, "SELECT count(*) FROM embeddings WHERE model_name = %s", MODEL) == 200


def test_reader_logs_in_with_the_given_password_and_can_only_read(database: Database, tmp_path: Path) -> None:
    password_file = tmp_path / "password"
    password_file.write_text("of the demo\n")
    assert run_loader(database, "--rows", "50", "--reader-password-file", str(password_file)).returncode == 0
    login = Login(load.READER, "of the demo")

    with psycopg.connect(database.conninfo(login)) as connection:
        ids, _ = load.live_rows(connection)
        assert len(ids) == 48
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE embeddings SET text = ''")


def test_password_stays_out_of_output_and_catalogue(database: Database) -> None:
    done = run_loader(database, "--rows", "50", DOCS_READER_PASSWORD="not-to-be-seen")

    assert done.returncode == 0
    assert "not-to-be-seen" not in done.stdout + done.stderr
    assert str(scalar(database, "SELECT rolpassword FROM pg_authid WHERE rolname = %s", load.READER)).startswith("SCRAM-SHA-256$")


def test_wrong_password_is_one_sentence(database: Database) -> None:
    done = run_loader(database, PGPASSWORD="wrong")

    assert done.returncode == 1
    assert done.stderr.startswith("load: connection failed")
    assert "Traceback" not in done.stderr


def test_failed_load_leaves_no_table(database: Database) -> None:
    done = run_loader(database, "--rows", "10001")

    assert done.returncode == 1
    assert "rows: expected 1 to 10000" in done.stderr
    assert scalar(database, "SELECT to_regclass('public.embeddings') IS NULL") is True


def test_every_table_and_column_of_the_manifest_is_in_the_schema(wordnet_database: WordnetDatabase) -> None:
    source = yaml.safe_load((ROOT / "examples/wordnet/vectorindex.yaml").read_text())["spec"]["source"]
    metadata = source["tombstone"]["metadata"]
    wanted = {(source["table"]["name"], column) for column in source["columns"].values()}
    wanted |= {(metadata["table"]["name"], metadata[column]) for column in ("id", "deleted", "model")}

    with wordnet_database.admin_connect() as connection:
        found = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        ).fetchall()

    assert wanted <= set(found)
