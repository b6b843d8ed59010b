"""Make a search of a word's own gloss, and read its answer: `query gold` prints a request, `query --names` puts words to an answer.

Only what is among the example's rows can be asked for, as no model that embeds texts is part of it.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from typing import Final

import numpy as np

from .load import DATA

NEAREST: Final = 5


def read_rows() -> list[dict[str, str]]:
    """Return the example's rows in the order of its vectors."""
    with (DATA / "rows.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def build_request(word: str) -> str:
    """Return a request for the rows nearest to the first gloss of a word; raise LookupError where there is none."""
    for place, row in enumerate(read_rows()):
        if word in row["lemmas"].split(", "):
            vector = np.load(DATA / "vectors.f16.npy", mmap_mode="r")[place].astype(np.float32)
            return json.dumps({"vector": vector.round(5).tolist(), "k": NEAREST})
    raise LookupError(f"no row of the example is called {word!r}")


def render_names(answer: str) -> str:
    """Return an answer with the words of each id."""
    document = json.loads(answer)
    if "results" not in document:
        return answer
    rows = {int(row["entity_id"]): row for row in read_rows()}
    lines = [f"as of {document['asOf']}, {'proven' if document['proven'] else 'not proven'}"]
    for found in document["results"]:
        row = rows.get(found["id"])
        lines.append(f"{found['id']}  {found['score']:.3f}  {row['lemmas'] + ': ' + row['gloss'] if row else '(a row of yours)'}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is asked for and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.wordnet.query", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("word", nargs="?", help="a word of the example, such as gold")
    parser.add_argument("--names", action="store_true", help="read an answer from the standard input instead")
    given = parser.parse_args(arguments)
    if given.names == (given.word is not None):
        parser.error("name a word, or --names")
    try:
        print(render_names(sys.stdin.read()) if given.names else build_request(given.word))
    except LookupError as error:
        print(f"query: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
