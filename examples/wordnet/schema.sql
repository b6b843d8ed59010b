-- The two tables of a typical search application: vectors in one, what became of them in the other.
-- load.py runs this file; nothing in it is special to VectorIndex, which needs no more than SELECT.

CREATE TABLE public.embeddings (
    entity_id   bigint NOT NULL,
    model_name  text   NOT NULL,
    vector      bytea,               -- float32, little-endian, 4 bytes a dimension
    text        text,
    PRIMARY KEY (entity_id, model_name)
);

-- Floats don't compress; trying costs time at each write of a wide row.
ALTER TABLE public.embeddings ALTER COLUMN vector SET STORAGE EXTERNAL;

-- Ranges of ids within one model: what a replica reads, and what each of its checks reads again.
CREATE INDEX embeddings_model_name_entity_id ON public.embeddings (model_name, entity_id);

-- A history, not one row an entity: each time the application indexes an entity it adds a row, and a deletion marks rows as deleted.
-- So an entity counts as deleted as soon as any of its rows says so.
CREATE TABLE public.faiss_metadata (
    metadata_id bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity_id   bigint      NOT NULL,
    model_name  text        NOT NULL,
    deleted     boolean     NOT NULL DEFAULT false,
    changed_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX faiss_metadata_model_name_entity_id ON public.faiss_metadata (model_name, entity_id) INCLUDE (deleted);

-- The role the replicas use. Roles belong to the whole server, so another database may have made it already. load.py sets the password.
DO $$
BEGIN
    CREATE ROLE docs_reader LOGIN CONNECTION LIMIT 50;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;

GRANT USAGE ON SCHEMA public TO docs_reader;
GRANT SELECT ON public.embeddings, public.faiss_metadata TO docs_reader;
