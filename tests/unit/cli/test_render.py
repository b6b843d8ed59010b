"""What people see of indexes as a real operator told of them: whole outputs, beside this file and in the manual."""

import json
import re
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import yaml

from tests.unit.cli.documents import FOLDER, STATES, load, load_document, make, read_at
from vectorindex_cli import render
from vectorindex_cli.documents import build_diff, build_plans, build_status, dump
from vectorindex_cli.render import Painter
from vectorindex_cli.resource import Progress, Verdict, format_age, judge

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


def test_held_plans_from_elsewhere_steer_no_terminal_either() -> None:
    """The definition allows no such words; but the definition is the server's, too."""
    document = json.loads(json.dumps(load_document("held")))
    for plan in document["status"]["heldPlans"]:
        plan |= {field: f"{plan[field]}\x1b]0;x\x07\u202e" for field in ("id", "reason", "action")}
    index, now = msgspec.convert(document, type(load("held"))), read_at("held")
    for text in (render.render_status(index, now, PLAIN), render.render_plans(index, now, PLAIN)):
        assert "]0;x" in text
        assert not [sign for sign in text if not sign.isprintable() and sign != "\n"]


def test_nothing_that_comes_from_elsewhere_steers_the_terminal() -> None:
    for state in ("held", "drifting"):
        ids = re.compile(r'"1\d{8}"')
        document = ids.sub(r'"1\\u001b[2J\\u202e7"', json.dumps(load_document(state))).replace(" rows ", "\\u001b]0;x\\u0007")
        index, now = msgspec.convert(json.loads(document), type(load(state))), read_at(state)
        held = state == "held"
        detail = render.render_plans(index, now, PLAIN) if held else render.render_diff(index, now, 10, PLAIN)
        for shown in (render.render_status(index, now, PLAIN), detail):
            assert "?]0;x?" in shown or "?7" in shown
            assert all(sign.isprintable() or sign == "\n" for sign in shown)
        assert "?7" in detail


@pytest.mark.parametrize("state", ["healthy", "drifting", "unknown"])
def test_differences_are_shown_as_in_the_manual(state: str) -> None:
    shown = render.render_diff(load(state), read_at(state), 10, PLAIN)
    assert f"```\n$ kubectl vectorindex diff docs -n search\n{shown}\n```\n" in MANUAL


@pytest.mark.parametrize("state", STATES)
def test_programs_get_the_status_as_it_is_stored(state: str) -> None:
    document = load_document(state)
    as_json, as_yaml = (dump(build_status(load(state), document, read_at(state)), form) for form in ("json", "yaml"))
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


def test_a_diff_names_rows_by_replica_and_kind_and_says_as_of_when() -> None:
    index, now = load("drifting"), read_at("drifting")
    shown = render.render_diff(index, now, 10, PLAIN)
    first = index.status.members[0]
    assert first.drift
    for kind, rows in first.drift.kinds.items():
        ids = getattr(first.drift_samples, kind)
        assert ids, "the document is of a status that names rows"
        more = ", ..." if rows > len(ids) else ""
        assert any(line.split() == [first.pod, kind, str(rows), *f"{', '.join(ids)}{more}".split()] for line in shown.splitlines())
    assert f"{first.pod}: differs; as of {first.as_of}" in shown
    assert render.render_diff(index, now, 1, PLAIN) != shown
    assert build_diff(index, now, 1)["replicas"][0]["drift"].keys() == first.drift.kinds.keys()


def test_a_diff_says_that_no_row_differs_only_where_that_is_proven() -> None:
    told = {state: "No row differs" in render.render_diff(load(state), read_at(state), 10, PLAIN) for state in STATES}
    assert told == dict.fromkeys(STATES, False) | {"healthy": True}
    old = render.render_diff(load("healthy"), read_at("healthy") + timedelta(hours=1), 10, PLAIN)
    assert "No row differs" not in old
    assert "could not look" in render.render_diff(load("unknown"), read_at("unknown"), 10, PLAIN)


def test_status_tells_how_far_a_build_is() -> None:
    index = load("healthy")
    told = []
    for progress in (Progress(4, 3800, 9500), Progress(4)):
        member = msgspec.structs.replace(index.status.members[0], progress=progress)
        status = msgspec.structs.replace(index.status, members=[member])
        told.append(render.render_status(msgspec.structs.replace(index, status=status), read_at("healthy"), PLAIN))
    assert "  docs-index-0: builds generation 4: 3800 of 9500 rows\n" in told[0]
    assert "  docs-index-0: builds generation 4: has to wait, or counts rows\n" in told[1]


def test_plans_for_programs_name_rows_too() -> None:
    (plan,) = build_plans(load("held"))["heldPlans"]
    assert plan["id"] == load("held").status.held_plans[0].id
    assert plan["sampleIds"]


@pytest.mark.parametrize(("seconds", "text"), [(-3, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172800, "2d")])
def test_ages_are_short(seconds: int, text: str) -> None:
    assert format_age(timedelta(seconds=seconds)) == text
