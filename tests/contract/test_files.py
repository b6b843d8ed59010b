"""The three documents between operator and indexer, written by one side and read by the other."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from tests.support.vector_index import SETTINGS, make_index
from tests.unit.operator.test_objects import EVERYTHING
from vectorindex_indexer import config, report
from vectorindex_operator import names, objects, reports
from vectorindex_operator.api import Json, LastProven, VectorIndex

GOLDEN = Path(__file__).parent / "status.json"
PROOF = LastProven(9500, "7390000000000000001/primary/1", "731:735:732", "sha256-128/int8/bytea/1c2d3e4f", "id", "2026-11-25T09:00:00Z")


def write_files(folder: Path, index: VectorIndex, proof: LastProven | None) -> tuple[Path, Path, objects.Desired]:
    """Write identity and live file as a pod finds them."""
    assert index.spec is not None
    desired = objects.build_children(index, index.spec, SETTINGS, proof)
    for manifest in desired.manifests:
        for name, content in manifest.get("data", {}).items():
            (folder / name).write_text(content)
    return folder / Path(names.IDENTITY_FILE).name, folder / Path(names.LIVE_FILE).name, desired


@pytest.mark.parametrize("spec", [{}, EVERYTHING, {"index": {"type": "Flat"}}], ids=["small", "everything", "flat"])
def test_the_indexer_reads_identity_and_live_file_and_names_the_same_hashes(tmp_path: Path, spec: Json) -> None:
    index = make_index({names.REBUILD_REQUESTED_AT: "2026-11-25T10:00:00+01:00"}, **spec)
    identity_file, live_file, desired = write_files(tmp_path, index, PROOF)
    identity, behaviour = config.load_identity(identity_file), config.load_behaviour(live_file, identity_file)
    assert (identity.hash, behaviour.hash) == (desired.identity_hash, desired.live_hash)
    assert (identity.name, identity.namespace, identity.uid) == (*reversed(index.key), index.uid)
    assert index.spec is not None
    assert behaviour.suspend is index.spec.suspend
    assert behaviour.period.total_seconds() == index.spec.consistency.period_seconds
    assert behaviour.wishes.rebuild_requested_at == datetime(2026, 11, 25, 9, tzinfo=UTC)
    assert behaviour.last_proven == config.LastProven(PROOF.rows, PROOF.incarnation, PROOF.snapshot, PROOF.digest_spec)


def test_defaults_left_out_by_the_operator_are_filled_in_alike_by_the_indexer(tmp_path: Path) -> None:
    identity_file, live_file, _ = write_files(tmp_path, make_index(), None)
    identity = config.load_identity(identity_file)
    assert identity.index == config.IndexSpec(8, config.Metric.COSINE, config.IndexType.HNSW, config.Hnsw(32, 80, 64))
    assert (identity.source.postgres.port, identity.source.table.schema) == (5432, "public")
    assert config.load_behaviour(live_file, identity_file).last_proven is None


def test_the_operator_reads_what_the_indexer_writes() -> None:
    status = msgspec.json.decode(GOLDEN.read_bytes(), type=report.Status)
    read = reports.parse_report(msgspec.json.encode(status), status.identity.pod_uid)
    assert (read.proof.root_digest, read.proof.snapshot, read.view and read.view.rows) == (status.proof.root_digest, "731:735:732", 9500)
    assert [repair.sample_ids for repair in read.repairs] == [repair.sample_ids for repair in status.repairs]
    assert read.quarantine == status.quarantine
