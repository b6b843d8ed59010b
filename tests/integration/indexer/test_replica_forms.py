"""A running replica whose ids are no integers tells people of its rows by the ids that stand in Postgres."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.postgres import Database
from tests.support.replica import running_replica, wait_until, write_settings
from tests.support.tables import Form, make_table
from vectorindex_indexer.keys import IdKind, to_texts


@pytest.mark.parametrize(("id_type", "kind"), [("uuid", IdKind.UUID), ("text", IdKind.TEXT)])
def test_a_repair_is_told_by_the_ids_of_its_rows(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture, id_type: str, kind: IdKind
) -> None:
    table = make_table(database, Form(id_type=id_type), 60)
    settings = write_settings(tmp_path, table.manifest(), database.create_reader())
    with running_replica(settings) as running:
        wait_until("proven", lambda: running.proven)
        belief = running._belief
        assert belief is not None
        lost = belief.view.live_entries()[0][3:5]
        none = np.empty((0, belief.view.spec.dimension), np.float32)
        running._belief = replace(belief, view=belief.view.change(lost, lost[:0], none))
        wait_until("repaired", lambda: bool(running.status().repairs))

        names = to_texts(np.sort(lost), kind)
        assert running.status().repairs[0].sample_ids == names
        (told,) = (record for record in caplog.records if record.message == "drift found")
        assert told.__dict__["ids"] == names
