"""The SQL of docs/digests.md, run by a real psql, gives the root digest that a replica publishes."""

import re
from pathlib import Path

import pytest

from examples.wordnet.load import MODEL, Variant
from tests.support.postgres import Database, MakeWordnetDatabase, WordnetDatabase
from tests.support.psql import run_psql
from tests.support.replica import load_belief, make_manifest, make_source, write_settings
from tests.support.tables import MODEL as OUR_MODEL
from tests.support.tables import Form, Rule, make_table
from vectorindex_indexer.config import Settings, load_identity
from vectorindex_indexer.ddl import Columns, write_script

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "digests.md").read_text(encoding="utf-8")
STATEMENTS = dict(re.findall(r"^### (.*?)\n.*?```sql\n(.*?)```", PAGE, flags=re.DOTALL | re.MULTILINE))
DIGEST_COLUMNS = "Digest columns, tombstone column in the same table"
IDS = {
    "Ids that are integers": ["bigint", "integer", "smallint"],
    "Ids that are uuids": ["uuid"],
    "Ids that are texts": ["text", "varchar(300)"],
}
VECTORS = {
    "Vectors in `bytea`": "bytea",
    "Vectors in pgvector's `vector`": "vector",
    "Vectors in pgvector's `halfvec`": "halfvec",
    "Vectors in `float4[]`": "float4[]",
}
RULES = {
    "No tombstones": Rule.NONE,
    "A boolean column in the same table": Rule.BOOLEAN,
    "A timestamp column in the same table": Rule.TIMESTAMP,
    "A metadata table with model column, `missing: Dead`": Rule.METADATA_DEAD,
    "A metadata table with model column, `missing: Live`": Rule.METADATA_LIVE,
}
CASES = [
    (ids, vectors, list(RULES)[(place + turn) % len(RULES)], id_type)
    for place, (ids, id_type) in enumerate((ids, id_type) for ids, types in IDS.items() for id_type in types)
    for turn, vectors in enumerate(VECTORS)
]
NAMES = {
    "public.embeddings": 'public."Documents"',
    "public.faiss_metadata": 'public."DocumentsMeta"',
    "m.entity_id": 'm."Ref"',
    "entity_id": '"Id"',
    "model_name": '"Model"',
    "deleted": '"Deleted"',
    "sentence-transformers/all-MiniLM-L6-v2": OUR_MODEL,
}


def test_each_block_of_the_page_has_a_case() -> None:
    assert STATEMENTS.keys() == {*IDS, *VECTORS, *RULES, DIGEST_COLUMNS}


def adapt(block: str) -> str:
    """Put in the names of our tables, as the page asks of its readers."""
    for old, new in NAMES.items():
        block = block.replace(old, new)
    return re.sub(r"\bvector\b(?!_)", '"Vector"', block)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[3]}-{VECTORS[case[1]]}")
def test_the_page_gives_the_published_root_digest(database: Database, tmp_path: Path, case: tuple[str, str, str, str]) -> None:
    ids, vectors, rule, id_type = case
    table = make_table(database, Form(id_type, VECTORS[vectors], RULES[rule]), rows=200)
    table.spoil(table.live_keys[3], "NULL")
    table.duplicate(table.live_keys[5])
    settings = write_settings(tmp_path, table.manifest(), database.create_reader())

    belief = load_belief(settings, make_source(settings))

    blocks = "".join(adapt(STATEMENTS[title]) for title in (ids, vectors, rule))
    assert run_psql(database, blocks) == str(belief.root)
    assert belief.ledger.rows == len(table.live) > 150


def add_digest_columns(database: WordnetDatabase, settings: Settings) -> None:
    """Add the columns by the statements that `vectorindex-indexer sql` prints for them."""
    script = write_script(load_identity(settings.config), Columns(vector_type="vector"), "nobody")
    run_psql(database, "ALTER TABLE" + script.partition("ALTER TABLE")[2])


def test_digest_columns_give_the_published_root_digest(make_wordnet_database: MakeWordnetDatabase, tmp_path: Path) -> None:
    database = make_wordnet_database(rows=3000, variant=Variant.PGVECTOR)
    with database.admin_connect() as connection:
        connection.execute(
            "UPDATE embeddings SET vector = NULL WHERE entity_id = (SELECT max(entity_id) FROM embeddings WHERE model_name = %s)", [MODEL]
        )
    settings = write_settings(tmp_path, make_manifest(database), database.create_reader())
    add_digest_columns(database, settings)

    belief = load_belief(settings, make_source(settings))

    assert run_psql(database, STATEMENTS[DIGEST_COLUMNS]) == str(belief.root)
    assert belief.ledger.rows >= 2800
