"""What each trial gets of the nodes, and how many run at once while nodes come and go."""

from __future__ import annotations

from itertools import product

import pytest

from lvray.ray_tune.capacity import PATIENCE_SECONDS, Node, Room, Workers, divide, workers_for


def nodes(*have: tuple[int, int]) -> list[Node]:
    """Nodes with so many cores and GPUs."""
    return [Node(f"n{number}", cpus, gpus) for number, (cpus, gpus) in enumerate(have)]


def fit(workers: Workers, there: list[Node]) -> list[int]:
    return [workers.fit(node) for node in there]


@pytest.mark.parametrize(
    ("have", "most", "cpus", "places"),
    [
        ([(2, 0)], 1, 2, [1]),
        ([(4, 0)], 3, 1, [4]),
        ([(2, 0), (2, 0)], 1, 2, [1, 1]),  # four cores in all, and no node has them
        ([(2, 0), (2, 0)], 3, 1, [2, 2]),
        ([(2, 0), (5, 0)], 2, 2, [1, 2]),
        ([(0, 0), (4, 0)], 2, 2, [0, 2]),  # a head that gives nothing
    ],
)
def test_cores_are_those_of_one_node(have, most, cpus, places):
    there = nodes(*have)
    workers = divide(there, most, trials_per_gpu=1, device="auto")
    assert workers == Workers(cpus, 0)
    assert fit(workers, there) == places


@pytest.mark.parametrize(
    ("have", "trials_per_gpu", "most", "workers", "places"),
    [
        ([(128, 4), (128, 4)], 1, 99, Workers(32, 1), [4, 4]),
        ([(128, 4), (128, 4)], 1, 3, Workers(64, 1), [2, 2]),
        ([(64, 0), (8, 1)], 2, 9, Workers(4, 0.5), [0, 2]),  # no core of the node without a GPU
        ([(1, 1)], 2, 9, Workers(0.5, 0.5), [2]),
        ([(64, 0), (1, 1)], 2, 9, Workers(0.5, 0.5), [0, 2]),
        ([(8, 4), (2, 4)], 1, 9, Workers(0.5, 1), [4, 4]),  # the poorest node decides
        ([(8, 4), (2, 4)], 1, 5, Workers(2, 1), [4, 1]),
    ],
)
def test_a_gpu_and_its_cores_are_those_of_one_node(have, trials_per_gpu, most, workers, places):
    there = nodes(*have)
    assert divide(there, most, trials_per_gpu=trials_per_gpu, device="auto") == workers
    assert fit(workers, there) == places


@pytest.mark.parametrize("trials_per_gpu", range(1, 101))
def test_no_trial_is_lost_to_the_rounding_of_a_share(trials_per_gpu):
    there = nodes((1, 1), (3, 2), (7, 8))
    workers = divide(there, 10_000, trials_per_gpu=trials_per_gpu, device="cuda")
    assert fit(workers, there) == [trials_per_gpu, 2 * trials_per_gpu, 8 * trials_per_gpu]


def test_gpus_are_left_alone_where_none_is_wanted():
    assert divide(nodes((8, 2)), 8, trials_per_gpu=1, device="cpu") == Workers(1, 0)


def test_as_many_run_at_once_as_may_and_no_core_more_could_be_given():
    for first, second, most in product(range(1, 9), range(9), range(1, 20)):
        there = nodes((first, 0), (second, 0))
        workers = divide(there, most, trials_per_gpu=1, device="cpu")
        assert sum(fit(workers, there)) >= min(most, first + second)
        more = Workers(workers.cpus + 1, 0)
        assert sum(fit(more, there)) < min(most, first + second)


@pytest.mark.parametrize("have", [[], [(0, 0)], [(0, 4)]])
def test_nothing_is_divided_where_no_node_has_a_core(have):
    assert divide(nodes(*have), 1, trials_per_gpu=1, device="auto") is None


def test_a_stage_that_finds_no_core_says_so_once_and_begins_when_there_is_one(monkeypatch):
    monkeypatch.setattr("lvray.ray_tune.capacity.LOOK_AGAIN_SECONDS", 0)
    looks = iter([nodes((0, 0)), nodes((0, 0)), nodes((0, 0), (2, 0))])
    told: list[str] = []
    workers = workers_for(lambda: next(looks), 2, trials_per_gpu=1, device="auto", tell=told.append)
    assert workers == Workers(1, 0)
    assert told == ["no node has a core to give to trials yet (n0: 0 CPU); waiting for one"]


class Scene:
    """A room, the nodes that there are, a clock, and what was told."""

    def __init__(self, *have: tuple[int, int], most: int = 99, workers: Workers) -> None:
        self.there = nodes(*have)
        self.looks = 0
        self.now = 0.0
        self.counts: list[int] = []
        self.told: list[str] = []
        self.room = Room(
            self.look,
            workers,
            most,
            changed=self.counts.append,
            tell=self.told.append,
            clock=lambda: self.now,
        )

    def look(self) -> list[Node]:
        self.looks += 1
        return self.there

    def after(self, seconds: float, *have: tuple[int, int]) -> int:
        """What the room says so much later, with these nodes."""
        self.now += seconds
        self.there = nodes(*have)
        return self.room()


def test_nodes_that_join_make_room_and_nodes_that_leave_take_it():
    scene = Scene((2, 0), workers=Workers(1, 0))
    assert scene.room() == 2
    assert scene.after(1, (2, 0), (3, 0)) == 5
    assert scene.after(1, (3, 0)) == 3
    assert scene.after(1, (3, 0)) == 3
    assert scene.counts == [5, 3]


def test_no_more_run_at_once_than_may():
    scene = Scene((2, 0), most=3, workers=Workers(1, 0))
    assert scene.after(1, (64, 0)) == 3


def test_the_nodes_are_looked_at_once_a_second_however_often_tune_asks():
    scene = Scene((2, 0), workers=Workers(1, 0))
    for _ in range(100):
        scene.after(0.1, (2, 0))
    assert scene.looks <= 12


def test_no_room_for_long_is_told_once_with_what_is_needed_and_what_is_there():
    scene = Scene((8, 1), workers=Workers(4, 0.5))
    for _ in range(int(PATIENCE_SECONDS) - 1):
        assert scene.after(1, (64, 0)) == 0
    assert scene.told == []
    for _ in range(100):
        scene.after(1, (64, 0))
    (words,) = scene.told
    assert "each needs 4 CPU and 0.5 GPU on one node" in words
    assert "n0: 64 CPU" in words
    scene.after(1, (64, 0), (8, 1))
    assert scene.told[1:] == ["a node with room for a trial is there: trials go on"]


def test_a_moment_without_a_node_is_not_worth_a_word():
    scene = Scene((2, 0), workers=Workers(1, 0))
    for _ in range(10):
        scene.after(PATIENCE_SECONDS - 1)
        scene.after(1, (2, 0))
    assert scene.told == []
