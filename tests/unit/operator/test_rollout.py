"""Another image goes to one index at a time, to those that are well first, and a bad one stops at the first."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.support.vector_index import make_index, make_observed, make_pod
from vectorindex_operator.names import Key
from vectorindex_operator.plan import Observed, find_image
from vectorindex_operator.rollout import ImageRollout, Stage, Turn

NEW = "registry.example/indexer:new"
KEYS = [Key("search", name) for name in ("a", "b", "c")]
A, B, C = KEYS


def observe(image: str = "", former: bool = False, ready: bool = True) -> Observed:
    """Return an index whose StatefulSet has this image (else the former one); `former`: its pods have the former one still."""
    observed = make_observed()
    live = observed.stateful_set
    assert live is not None
    old = find_image(live)
    live["spec"]["template"]["spec"]["containers"][0]["image"] = image or old
    pods = tuple(replace(pod, image=old if former or not image else image, ready=ready) for pod in observed.pods)
    return replace(observed, pods=pods)


def roll(observed: Observed) -> Observed:
    """Return the index as its StatefulSet still replaces pods."""
    live = observed.stateful_set
    assert live is not None
    live["status"]["updatedReplicas"] = 1
    return observed


OLD, OLD_AND_ILL = observe(), observe(ready=False)
DONE, ROLLING, BROKEN = observe(NEW), roll(observe(NEW, former=True)), observe(NEW, ready=False)
RENAMED = observe(NEW, former=True)  # rolled out, and a policy of the cluster gave the pods another reference of the image


def noted(found: Mapping[Key, Observed]) -> ImageRollout:
    rollout = ImageRollout(NEW)
    for key, observed in found.items():
        rollout.note(key, observed, is_refused=False)
    return rollout


@pytest.mark.parametrize(
    ("observed", "stage"),
    [
        (OLD, Stage.WAITING),
        (OLD_AND_ILL, Stage.WAITING_ILL),
        (DONE, Stage.DONE),
        (ROLLING, Stage.MOVING),
        (BROKEN, Stage.DONE),  # ill for another reason: a new index that can't start must not stop the others
        (Observed(make_index()), Stage.DONE),
        (Observed(make_index(), pods=(make_pod(),)), Stage.DONE),
        (replace(OLD, index=replace(OLD.index, deleting=True)), Stage.DONE),  # however long that takes, nobody waits for it
        (RENAMED, Stage.DONE),
    ],
)
def test_stages(observed: Observed, stage: Stage) -> None:
    assert ImageRollout(NEW).note(A, observed, is_refused=False) is stage


def test_an_index_whose_change_is_refused_lets_the_others_go_first() -> None:
    assert ImageRollout(NEW).note(A, OLD, is_refused=True) is Stage.WAITING_ILL


def test_nobody_gets_it_before_all_have_been_looked_at() -> None:
    rollout = noted({A: OLD, B: OLD})
    assert rollout.take_turn(A, KEYS) == Turn(False)
    rollout.note(C, DONE, is_refused=False)
    assert rollout.take_turn(A, KEYS) == Turn(True)


def test_one_after_the_other_in_order_of_names() -> None:
    rollout = noted(dict.fromkeys(KEYS, OLD))
    assert rollout.take_turn(B, KEYS) == Turn(False, A)
    assert rollout.take_turn(A, KEYS) == Turn(True)
    assert rollout.count_waiting() == 2
    assert rollout.take_turn(B, KEYS) == Turn(False, A)
    for observed in (ROLLING, BROKEN):  # neither half of it nor a replica that does not get ready lets the next one go
        rollout.note(A, observed, is_refused=False)
        assert rollout.take_turn(B, KEYS) == Turn(False, A)
    rollout.note(A, DONE, is_refused=False)
    assert rollout.take_turn(C, KEYS) == Turn(False, B)
    assert rollout.take_turn(B, KEYS) == Turn(True)


def test_a_new_process_waits_for_a_rollout_that_goes_on() -> None:
    rollout = noted({A: OLD, B: ROLLING, C: OLD})
    assert rollout.take_turn(A, KEYS) == Turn(False, B)


def test_the_ill_come_last_and_do_not_wait_for_one_another() -> None:
    rollout = noted({A: OLD_AND_ILL, B: OLD, C: OLD_AND_ILL})
    assert rollout.take_turn(A, KEYS) == Turn(False, B)
    assert rollout.take_turn(B, KEYS) == Turn(True)
    rollout.note(B, DONE, is_refused=False)
    assert rollout.take_turn(A, KEYS) == Turn(True)
    rollout.note(A, BROKEN, is_refused=False)
    assert rollout.take_turn(C, KEYS) == Turn(True)


def test_the_ill_wait_for_one_that_was_well_before_it_got_the_image() -> None:
    rollout = noted({A: OLD, B: OLD_AND_ILL})
    assert rollout.take_turn(A, [A, B]) == Turn(True)
    rollout.note(A, BROKEN, is_refused=False)
    assert rollout.take_turn(B, [A, B]) == Turn(False, A)
    rollout.note(A, DONE, is_refused=False)
    assert rollout.take_turn(B, [A, B]) == Turn(True)


def test_an_image_that_a_policy_of_the_cluster_replaces_does_not_stop_the_others() -> None:
    rollout = noted({A: OLD, B: OLD})
    assert rollout.take_turn(A, [A, B]) == Turn(True)
    rollout.accept(A)
    rollout.note(A, OLD, is_refused=False)
    assert rollout.count_waiting() == 1
    assert rollout.take_turn(B, [A, B]) == Turn(True)


def test_an_index_that_is_deleted_while_it_moves_stops_nobody() -> None:
    rollout = noted(dict.fromkeys(KEYS, OLD))
    assert rollout.take_turn(A, KEYS) == Turn(True)
    rollout.forget(A)
    assert rollout.take_turn(B, [B, C]) == Turn(True)
