"""The OpenAPI description of the search port, made for the index at hand."""

from typing import Any, Final

from vectorindex_indexer.config import Identity, IndexType, Metric

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
MAX_QUERIES: Final = 1000  # in one request
MAX_K: Final = 1000
MAX_HITS: Final = 100_000  # queries times k: bounds the answer to a few megabytes
MAX_EF_SEARCH: Final = 4096
MAX_NPROBE: Final = 65536

BINARY: Final = "application/octet-stream"

_BINARY_ANSWER: Final = (
    "All ids (int64), then all scores (float32), little-endian, k of each a vector; -1 and NaN where there are fewer rows"
)
_SCORE: Final = {
    Metric.COSINE: "Cosine similarity, -1 to 1; higher is nearer.",
    Metric.INNER_PRODUCT: "Inner product; higher is nearer.",
    Metric.L2: "Squared Euclidean distance; lower is nearer.",
}


def build_openapi(identity: Identity, version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the search port of one index."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Search in the index {identity.name}",
            "version": version,
            "summary": "Nearest live rows of a Postgres table",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": {
            f"/v1/indexes/{identity.name}/search": {"post": _build_search(identity)},
            "/openapi.json": {
                "get": {
                    "operationId": "describe",
                    "summary": "This document",
                    "responses": {"200": {"description": "This document", "content": {"application/json": {"schema": {"type": "object"}}}}},
                }
            },
        },
        "components": {"schemas": _build_schemas(identity)},
    }


def _build_search(identity: Identity) -> dict[str, Any]:
    problems = {
        "400": "The request is wrong; `field` names where",
        "408": "The body did not come in time",
        "413": "The body is too large",
        "415": "The body is neither plain JSON nor plain bytes",
        "500": "A defect of the server",
        "503": "Nothing proven to search yet, or too much to do; see Retry-After",
    }
    generation = {"description": "Generation of the index that answered", "schema": {"type": "integer"}}
    as_of = {"description": "As-of point of the answer", "schema": {"type": "string"}}
    proven = {"description": "Whether the index equals Postgres as of that point", "schema": {"type": "string", "enum": ["true", "false"]}}
    responses: dict[str, Any] = {
        "200": {
            "description": "The nearest live rows, nearest first; fewer than k if there are fewer",
            "headers": {"VectorIndex-Generation": generation, "VectorIndex-As-Of": as_of, "VectorIndex-Proven": proven},
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Answer"}},
                BINARY: {"schema": {"type": "string", "format": "binary", "description": _BINARY_ANSWER}},
            },
        }
    }
    for code, description in problems.items():
        responses[code] = {
            "description": description,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    responses["503"]["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
    return {
        "operationId": "search",
        "summary": f"Find the rows nearest to one vector of {identity.index.dimension} numbers, or to several",
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "schema": schema,
                "description": "Only for the binary form; others say it in the body",
            }
            for name, schema in _build_reach(identity).items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Search"}},
                BINARY: {
                    "schema": {"type": "string", "format": "binary", "description": "Vectors behind each other, float32, little-endian"}
                },
            },
        },
        "responses": responses,
    }


def _build_reach(identity: Identity) -> dict[str, Any]:
    """Return what may be said of how many rows are wanted and how far the search goes."""
    index = identity.index
    reach: dict[str, Any] = {
        "k": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_K,
            "default": 10,
            "description": f"Rows wanted for each vector; vectors times k is at most {MAX_HITS}",
        },
    }
    if index.type is IndexType.HNSW:
        reach["efSearch"] = {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_EF_SEARCH,
            "default": index.hnsw.ef_search,
            "description": "Width of the search: more is more exact and slower",
        }
    if index.type is IndexType.IVFFLAT:
        reach["nprobe"] = {
            "type": "integer",
            "minimum": 1,
            "maximum": index.ivf.nlist,
            "default": index.ivf.nprobe,
            "description": "Lists that are read: more is more exact and slower",
        }
    return reach


def _build_schemas(identity: Identity) -> dict[str, Any]:
    dimension = identity.index.dimension
    search: dict[str, Any] = {
        "vector": {"$ref": "#/components/schemas/Vector"},
        "vectors": {"type": "array", "minItems": 1, "maxItems": MAX_QUERIES, "items": {"$ref": "#/components/schemas/Vector"}},
        **_build_reach(identity),
    }
    hits = {"type": "array", "items": {"$ref": "#/components/schemas/Hit"}}
    return {
        "Vector": {"type": "array", "minItems": dimension, "maxItems": dimension, "items": {"type": "number"}},
        "Search": {
            "type": "object",
            "additionalProperties": False,
            "properties": search,
            "oneOf": [{"required": ["vector"]}, {"required": ["vectors"]}],
        },
        "Hit": {
            "type": "object",
            "required": ["id", "score"],
            "properties": {
                "id": {
                    "type": ["integer", "string"],
                    "description": "The row's id in Postgres: a number of up to 64 bits, a uuid as Postgres writes it, or a text",
                },
                "score": {"type": ["number", "null"], "description": f"{_SCORE[identity.index.metric]} Null if beyond float32."},
            },
        },
        "Answer": {
            "type": "object",
            "required": ["generation", "asOf", "proven", "results"],
            "properties": {
                "generation": {"type": "integer", "description": "Generation of the index that answered; grows with each rebuild"},
                "asOf": {"type": "string", "description": "RFC 3339; the moment in Postgres the answer stands for"},
                "proven": {"type": "boolean", "description": "Whether the index equals Postgres as of that moment"},
                "results": {
                    "description": "Hits for `vector`; one list of hits for each of `vectors`",
                    "oneOf": [hits, {"type": "array", "minItems": 1, "items": hits}],
                },
            },
        },
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "field": {"type": "string", "description": "What of the request is wrong, such as vector[3]"},
            },
        },
    }
