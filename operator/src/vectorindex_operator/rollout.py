"""Decides whose turn it is to get another image: one VectorIndex at a time, the well ones first, so that a bad image hurts one of them.

Pure; what is noted is lost with the process, and noted again by one look at each index.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Final

from vectorindex_operator.names import Key
from vectorindex_operator.plan import Observed, find_image, is_rolled_out


class Stage(Enum):
    """How far one index is with the operator's image."""

    DONE = "done"  # has the image, or nothing that could get it
    MOVING = "moving"  # is getting the image
    WAITING = "waiting"  # has another image, and every replica of it is ready
    WAITING_ILL = "waiting, ill"  # has another image, and not every replica is ready: a new one can only do good


IMAGE_WAITS: Final = frozenset({Stage.WAITING, Stage.WAITING_ILL})


@dataclass(frozen=True)
class Turn:
    """Whether an index may get the image now; if not, whom it waits for (None: not all have been looked at yet)."""

    is_now: bool
    waits_for: Key | None = None


class ImageRollout:
    """What the looks at all indexes found about their images."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._stages: dict[Key, Stage] = {}
        self._moved: dict[Key, bool] = {}  # got the image from us, and have not been well since; whether they were well before
        self._accepted: set[Key] = set()  # their StatefulSet says otherwise, and is what the API server makes of the image

    def note(self, key: Key, observed: Observed, *, is_refused: bool) -> Stage:
        """Take in what a look found, and return the stage."""
        stage = self._stages[key] = self._find_stage(key, observed, is_refused)
        return stage

    def forget(self, key: Key) -> None:
        """Drop an index that is gone."""
        self._stages.pop(key, None)
        self._moved.pop(key, None)
        self._accepted.discard(key)

    def accept(self, key: Key) -> None:
        """Take in that nothing changes when this index gets the image: a policy of the cluster puts another reference in its place."""
        self._stages[key] = Stage.DONE
        self._accepted.add(key)
        self._moved.pop(key, None)

    def count_waiting(self) -> int:
        """Return how many indexes have another image than the operator's."""
        return sum(stage in IMAGE_WAITS for stage in self._stages.values())

    def take_turn(self, key: Key, all_keys: Collection[Key]) -> Turn:
        """Return whether this index, of all that there are, gets the image now; it counts as moving from then on."""
        turn = self._find_turn(key, all_keys)
        if turn.is_now:
            self._moved[key] = self._stages[key] is Stage.WAITING
            self._stages[key] = Stage.MOVING
        return turn

    def _find_stage(self, key: Key, observed: Observed, is_refused: bool) -> Stage:
        live = observed.stateful_set
        if live is None or observed.index.spec is None or observed.index.deleting:
            self._moved.pop(key, None)
            return Stage.DONE
        is_well = is_rolled_out(live) and all(pod.ready and not pod.terminating for pod in observed.pods) and not is_refused
        if find_image(live) != self._image and key not in self._accepted:
            return Stage.WAITING if is_well else Stage.WAITING_ILL
        # A pod with another image shows a rollout that another process began; once all are of the newest template, only that a policy of
        # the cluster names the image in its own way.
        has_former = not is_rolled_out(live) and any(pod.image not in ("", self._image) for pod in observed.pods)
        if is_well and not has_former:
            self._moved.pop(key, None)
        return Stage.MOVING if key in self._moved or has_former else Stage.DONE

    def _find_turn(self, key: Key, all_keys: Collection[Key]) -> Turn:
        if any(other not in self._stages for other in all_keys):
            return Turn(False)
        well = sorted(other for other, stage in self._stages.items() if stage is Stage.WAITING)
        if self._stages[key] is Stage.WAITING_ILL:  # the ill don't wait for one another: one that stays ill would stop the rest
            tried = sorted(other for other, was_well in self._moved.items() if was_well)
            before = next(iter([*tried, *well]), None)
            return Turn(before is None, before)
        moving = sorted(other for other, stage in self._stages.items() if stage is Stage.MOVING)
        first = next(iter([*moving, *well]))
        return Turn(first == key, None if first == key else first)
