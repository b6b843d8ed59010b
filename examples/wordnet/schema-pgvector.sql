-- The same rows for users of pgvector: the vector has its own type and the tombstone stands beside it (recommended: one table, one truth).

CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE public.embeddings (
    entity_id   bigint  NOT NULL,
    model_name  text    NOT NULL,
    vector      vector(384),
    text        text,
    deleted     boolean NOT NULL DEFAULT false,
    PRIMARY KEY (entity_id, model_name)
);

ALTER TABLE public.embeddings ALTER COLUMN vector SET STORAGE EXTERNAL;

-- Ranges of ids within one model: what a replica reads, and what each of its checks reads again.
CREATE INDEX embeddings_model_name_entity_id ON public.embeddings (model_name, entity_id) INCLUDE (deleted);

-- The role the replicas use. Roles belong to the whole server, so another database may have made it already. load.py sets the password.
DO $$
BEGIN
    CREATE ROLE docs_reader LOGIN CONNECTION LIMIT 50;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;

GRANT USAGE ON SCHEMA public TO docs_reader;
GRANT SELECT ON public.embeddings TO docs_reader;
