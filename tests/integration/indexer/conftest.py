"""Fixtures of the indexer's integration tests: a real Postgres."""

from tests.support.postgres import database, make_wordnet_database, postgres_server, wordnet_database

__all__ = ["database", "make_wordnet_database", "postgres_server", "wordnet_database"]
