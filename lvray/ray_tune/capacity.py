"""How many trials fit the nodes that are there, and what does each of them get?

A trial runs on one node: the GPUs of one and the cores of another make no place for it. What each trial gets
is fixed for a stage, since Tune hands one worker process from trial to trial. How many run at once is not:
nodes join and leave while a stage runs, so it is asked again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic, sleep

Capacity = Callable[[], int]
"""Says how many trials may run at once, now."""

Tell = Callable[[str], None]
"""Tells a person one sentence."""

LOOK_AGAIN_SECONDS = 1.0
"""Between two looks at the nodes. One costs 0.4 ms, and more under load; Tune asks ten times a second."""

PATIENCE_SECONDS = 30.0
"""How long no node may have room for a trial before a person is told."""

ROUNDING = 1e-6
"""Three thirds are one GPU, whatever floats say. Ray itself counts in steps of 1e-4."""


@dataclass(frozen=True, slots=True)
class Node:
    """What one node has for trials, in use or not."""

    host: str
    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Workers:
    """What each trial of a stage gets."""

    cpus: float
    """Cores a trial."""
    gpus: float
    """Share of a GPU a trial; 0 on machines without."""

    @property
    def threads(self) -> int:
        """CPU threads that torch may use in one trial; two on shared cores slow each other down."""
        return max(1, int(self.cpus))

    def device(self, asked: str) -> str:
        """The device that a trial is told of where the sweep file says `asked`.

        A trial that holds a GPU must not make do with the CPU: ``auto`` is ``cuda`` then, and fails where torch has none.
        """
        return "cuda" if self.gpus and asked == "auto" else asked

    def fit(self, node: Node) -> int:
        """Gives how many trials fit `node` at once."""
        places = [(node.cpus, self.cpus), (node.gpus, self.gpus)]
        return min(int(have / each + ROUNDING) for have, each in places if each)


def divide(nodes: Sequence[Node], most: int, *, trials_per_gpu: int, device: str) -> Workers | None:
    """Divides nodes among trials: as many at once as there may be, each with as many cores as that leaves it.

    Args:
        nodes: those that are there.
        most: how many trials there may be at once, however many would fit; fewer trials get more cores each.
        trials_per_gpu: how many trials share one GPU.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        What each trial gets, or None where no node has a core to give. With fewer cores than shares of GPUs, trials
        share cores too.
    """
    on_gpus = device in {"auto", "cuda"} and any(node.gpus and node.cpus for node in nodes)
    here = [node for node in nodes if node.cpus and (node.gpus or not on_gpus)]
    if not here:
        return None
    gpus = 1 / trials_per_gpu if on_gpus else 0.0
    shares = [node.gpus * trials_per_gpu if on_gpus else node.cpus for node in here]
    count = min(most, sum(shares))
    for cpus in range(max(node.cpus for node in here), 0, -1):
        workers = Workers(cpus, gpus)
        if sum(map(workers.fit, here)) >= count:
            return workers
    return Workers(min(node.cpus / share for node, share in zip(here, shares, strict=True)), gpus)


def workers_for(
    nodes: Callable[[], Sequence[Node]],
    most: int,
    *,
    trials_per_gpu: int,
    device: str,
    tell: Tell,
) -> Workers:
    """Divides nodes among the trials of a stage, as `divide` does; waits where no node has a core to give, and says so."""
    told = False
    while True:
        here = nodes()
        workers = divide(here, most, trials_per_gpu=trials_per_gpu, device=device)
        if workers is not None:
            return workers
        if not told:
            tell(f"no node has a core to give to trials yet ({in_words(here)}); waiting for one")
            told = True
        sleep(LOOK_AGAIN_SECONDS)


class Room:
    """The `Capacity` of the nodes that are there, for trials that get what `workers` says."""

    def __init__(
        self,
        nodes: Callable[[], Sequence[Node]],
        workers: Workers,
        most: int,
        *,
        changed: Callable[[int], None],
        tell: Tell,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Looks at the nodes for the first time.

        Args:
            nodes: gives those that are there now.
            workers: what each trial gets.
            most: how many trials there may be at once, however many would fit.
            changed: told the new count whenever it is another one.
            tell: told once when there has been no room for long, and once when there is room again.
            clock: seconds.
        """
        self._nodes = nodes
        self.workers = workers
        self._most = most
        self._changed = changed
        self._tell = tell
        self._clock = clock
        self._looked = self._roomy = clock()
        self._told = False
        self._count = self._look()

    def __call__(self) -> int:
        """Gives how many trials may run at once, looking again at the nodes once a second at most."""
        now = self._clock()
        if now - self._looked >= LOOK_AGAIN_SECONDS:
            self._looked = now
            before, self._count = self._count, self._look()
            if self._count != before:
                self._changed(self._count)
            self._complain(now)
        return self._count

    def _look(self) -> int:
        return min(self._most, sum(map(self.workers.fit, self._nodes())))

    def _complain(self, now: float) -> None:
        if self._count:
            if self._told:
                self._tell("a node with room for a trial is there: trials go on")
            self._roomy, self._told = now, False
        elif not self._told and now - self._roomy >= PATIENCE_SECONDS:
            self._told = True
            self._tell(
                f"no trial runs: each needs {_need(self.workers)} on one node, and no node has that "
                f"({in_words(self._nodes())}). They go on when one joins; Ctrl-C ends the session, and the same command "
                "divides anew what is there then"
            )


def in_words(nodes: Sequence[Node]) -> str:
    """The nodes and what each has."""
    return ", ".join(f"{node.host}: {_amount(node.cpus, node.gpus)}" for node in nodes) or "none"


def _need(workers: Workers) -> str:
    return _amount(workers.cpus, workers.gpus)


def _amount(cpus: float, gpus: float) -> str:
    return f"{cpus:.3g} CPU" + (f" and {gpus:.3g} GPU" if gpus else "")
