"""What people see of indexes as a real operator told of them: whole outputs, beside this file and in the manual."""

import json
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import yaml

from tests.unit.cli.documents import FOLDER, STATES, load, load_document, make, read_at
from vectorindex_cli import render
from vectorindex_cli.render import Painter
from vectorindex_cli.resource import Verdict, format_age, judge

PLAIN, PAINTED = Painter(False), Painter(True)
MANUAL = (Path(__file__).resolve().parents[3] / "docs" / "cli.md").read_text()
VERDICTS = {"healthy": Verdict.CONSISTENT, "drifting": Verdict.DRIFT, "unknown": Verdict.UNKNOWN, "held": Verdict.DRIFT}


def status_of(state: str, painter: Painter = PLAIN) -> str:
    return render.render_status(load(state), read_at(state), painter)


@pytest.mark.parametrize("state", STATES)
def test_status_is_shown_as_in_the_manual(state: str) -> None:
    assert status_of(state) == (FOLDER / f"{state}.txt").read_text().rstrip("\n")
    assert f"```\n$ kubectl vectorindex status docs -n search\n{status_of(state)}\n```\n" in MANUAL


def test_plans_are_shown_as_in_the_manual() -> None:
    shown = render.render_plans(load("held"), read_at("held"), PLAIN)
    assert f"```\n$ kubectl vectorindex plan docs -n search\n{shown}\n```\n" in MANUAL


@pytest.mark.parametrize("state", STATES)
def test_colours_change_no_letter(state: str) -> None:
    painted = status_of(state, PAINTED)
    assert "\x1b[" in painted
    for colour in (1, 31, 32, 33, 0):
        painted = painted.replace(f"\x1b[{colour}m", "")
    assert painted == status_of(state)


@pytest.mark.parametrize("state", STATES)
def test_the_verdict_is_that_of_the_condition(state: str) -> None:
    assert judge(load(state), read_at(state)) == (VERDICTS[state], "")


def test_an_old_proof_makes_unknown_of_consistent_and_of_nothing_else() -> None:
    later = {state: judge(load(state), read_at(state) + timedelta(hours=1)) for state in STATES}
    assert {state: judgement.verdict for state, judgement in later.items()} == VERDICTS | {"healthy": Verdict.UNKNOWN}
    assert later["healthy"].doubt == "nobody keeps the status up to date, its newest proof is 60m old: is the operator running?"
    shown = render.render_status(load("healthy"), read_at("healthy") + timedelta(hours=1), PLAIN)
    assert "Verdict    unknown, nobody keeps the status up to date" in shown


def test_a_status_of_an_earlier_spec_is_unknown() -> None:
    healthy = load("healthy")
    metadata = msgspec.structs.replace(healthy.metadata, generation=healthy.metadata.generation + 1)
    assert judge(msgspec.structs.replace(healthy, metadata=metadata), read_at("healthy")).verdict is Verdict.UNKNOWN


def test_an_index_that_nobody_looked_at_is_unknown_and_can_be_shown() -> None:
    index = make()
    assert judge(index, read_at("healthy")).verdict is Verdict.UNKNOWN
    assert "no operator has looked at it yet" in render.render_status(index, read_at("healthy"), PLAIN)


def test_what_a_replica_could_not_see_is_not_told_as_no_drift() -> None:
    row = next(line for line in status_of("unknown").splitlines() if line.startswith("  docs-index-0  "))
    assert row.split()[4:6] == ["unknown", "?"]


def test_nothing_that_comes_from_elsewhere_steers_the_terminal() -> None:
    document = json.dumps(load_document("held")).replace("100001740", "1\\u001b[2J\\u202e7").replace("4012 of 9500", "\\u001b]0;x\\u0007")
    index = msgspec.convert(json.loads(document), type(load("held")))
    for shown in (render.render_status(index, read_at("held"), PLAIN), render.render_plans(index, read_at("held"), PLAIN)):
        assert "?7" in shown
        assert all(sign.isprintable() or sign == "\n" for sign in shown)


@pytest.mark.parametrize("state", STATES)
def test_programs_get_the_status_as_it_is_stored(state: str) -> None:
    document = load_document(state)
    as_json, as_yaml = (render.render_document(load(state), document, read_at(state), form) for form in ("json", "yaml"))
    told = json.loads(as_json)
    assert told == yaml.safe_load(as_yaml)
    assert told["status"] == document["status"]
    assert told["verdict"].upper() == VERDICTS[state].name


def test_advice_for_held_plans_says_what_keeps_them_from_being_carried_out() -> None:
    held = load("held")
    spec = msgspec.structs.replace(held.spec, suspend=True, healing=msgspec.structs.replace(held.spec.healing, mode="Observe"))
    shown = render.render_plans(msgspec.structs.replace(held, spec=spec), read_at("held"), PLAIN)
    assert "nothing is carried out, approved or not, before it is Auto or Plan" in shown
    assert "nothing is carried out before `kubectl vectorindex resume docs -n search`" in shown


def test_progress_counts_replicas_with_a_newer_index_and_new_pods() -> None:
    started = load("healthy")
    first, second = started.status.members
    newer = msgspec.structs.replace(first, generation=(first.generation or 0) + 1)
    half = msgspec.structs.replace(started, status=msgspec.structs.replace(started.status, members=[newer, second]))
    assert render.render_progress(half, started, bar=False) == "1 of 2 replicas rebuilt (docs-index-1: Serving, generation 3, 9500 rows)"
    assert render.render_progress(half, started, bar=True).startswith("[##########..........] 1 of 2")
    fresh = msgspec.structs.replace(second, pod_uid="another", generation=1)
    done = msgspec.structs.replace(started, status=msgspec.structs.replace(started.status, members=[newer, fresh]))
    assert render.render_progress(done, started, bar=True) == f"[{'#' * 20}] 2 of 2 replicas rebuilt"


@pytest.mark.parametrize(("seconds", "text"), [(-3, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172800, "2d")])
def test_ages_are_short(seconds: int, text: str) -> None:
    assert format_age(timedelta(seconds=seconds)) == text
