"""The SQL of docs/digests.md, run by a real psql, gives the root digest that a replica publishes."""

import re
from pathlib import Path

import pytest

from examples.wordnet.load import MODEL, Variant
from tests.support.postgres import MakeWordnetDatabase, WordnetDatabase
from tests.support.psql import run_psql
from tests.support.replica import load_belief, make_manifest, make_source, write_settings
from vectorindex_indexer.config import Settings, load_identity
from vectorindex_indexer.ddl import Columns, write_script

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "digests.md").read_text(encoding="utf-8")
STATEMENTS = dict(re.findall(r"^### (.*?)\n.*?```sql\n(.*?)```", PAGE, flags=re.DOTALL | re.MULTILINE))
METADATA = {"table": {"name": "faiss_metadata"}, "id": "entity_id", "deleted": "deleted", "model": "model_name"}
DIGEST_COLUMNS = "Digest columns, tombstone column in the same table"
CASES = {
    "`bytea`, metadata table with model column, `missing: Dead`": (Variant.TWO_TABLES, {"metadata": METADATA}),
    "`bytea`, metadata table, `missing: Live`": (Variant.TWO_TABLES, {"metadata": METADATA | {"missing": "Live"}}),
    "`bytea`, no tombstones": (Variant.TWO_TABLES, None),
    "pgvector's `vector`, tombstone column in the same table": (Variant.PGVECTOR, {"column": "deleted"}),
    DIGEST_COLUMNS: (Variant.PGVECTOR, {"column": "deleted"}),
}


def test_each_statement_of_the_page_has_a_case() -> None:
    assert STATEMENTS.keys() == CASES.keys()


def add_digest_columns(database: WordnetDatabase, settings: Settings) -> None:
    """Add the columns by the statements that `vectorindex-indexer sql` prints for them."""
    script = write_script(load_identity(settings.config), Columns(vector_type="vector"), "nobody")
    run_psql(database, "ALTER TABLE" + script.partition("ALTER TABLE")[2])


@pytest.mark.parametrize("title", list(CASES))
def test_the_page_gives_the_published_root_digest(title: str, make_wordnet_database: MakeWordnetDatabase, tmp_path: Path) -> None:
    variant, tombstone = CASES[title]
    database = make_wordnet_database(rows=3000, variant=variant)
    with database.admin_connect() as connection:
        # A bad row and one without metadata: both count, each in its way.
        connection.execute(
            "UPDATE embeddings SET vector = NULL WHERE entity_id = (SELECT max(entity_id) FROM embeddings WHERE model_name = %s)", [MODEL]
        )
        if variant is Variant.TWO_TABLES:
            connection.execute(
                "DELETE FROM faiss_metadata WHERE entity_id = (SELECT min(entity_id) FROM faiss_metadata WHERE model_name = %s)", [MODEL]
            )
    settings = write_settings(tmp_path, make_manifest(database, source__tombstone=tombstone), database.create_reader())
    if title == DIGEST_COLUMNS:
        add_digest_columns(database, settings)

    belief = load_belief(settings, make_source(settings))

    assert run_psql(database, STATEMENTS[title]) == str(belief.root)
    assert belief.ledger.rows >= 2800
