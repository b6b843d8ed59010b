"""The demo's steps, as tests, in their order: an index is served, proven, follows, and heals."""

import pytest

from examples.wordnet.steps import story
from examples.wordnet.steps.searching import watching
from examples.wordnet.steps.story import Attack, Done
from examples.wordnet.steps.world import World

pytestmark = pytest.mark.usefixtures("index")


def test_ten_thousand_rows_are_ready_within_thirty_seconds_of_apply(index: float) -> None:
    assert index < 30


def test_searches_find_what_exact_search_finds_and_no_tombstoned_row(scene: World) -> None:
    assert story.find_neighbours(scene) >= 0.995


def test_all_replicas_follow_upstream_changes_and_count_them_as_synchronised(scene: World) -> None:
    queries, dead = story.make_queries(scene)
    with watching(scene, queries, dead) as watch:
        story.follow_changes(scene)
    story.check_watch(watch)


@pytest.mark.parametrize("attack", story.ATTACKS, ids=lambda attack: attack.kind)
def test_wrong_saved_index_is_found_and_repaired_before_it_serves(scene: World, done: Done, attack: Attack) -> None:
    queries, dead = story.make_queries(scene)
    with watching(scene, queries, dead) as watch:
        story.heal_saved_index(scene, done, attack)
    story.check_watch(watch)


def test_wrong_model_key_is_unknown_names_the_right_one_and_is_not_served(scene: World) -> None:
    story.refuse_wrong_key(scene)


def test_broken_connections_and_statements_leave_nothing_behind(scene: World, done: Done) -> None:
    story.survive_broken_connections(scene, done)


def test_metrics_tell_what_was_done(scene: World, done: Done) -> None:
    story.compare_metrics(scene, done)


def test_answers_are_still_exact_at_the_end(scene: World) -> None:
    for pod in (0, 1):
        story.check_answers(scene, pod)
