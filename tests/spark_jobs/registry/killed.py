"""Promotes versions in child processes and kills them at random points; a program of its own, so that its forks are small.

    python -m killed FOLDER TIMES SEED PROMOTERS

After each kill the pointer must name the old champion or the new one, whole.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from finished_run import finished_run

from spark_jobs.registry import pointer, versions
from spark_jobs.registry.places import DirectoryPlace, Place, place_of
from spark_jobs.registry.pointer import Champion
from spark_jobs.registry.versions import Candidate

MOST_LINES = 120_000
"""Within so many lines of Python a child registers three versions and promotes several times."""
MOST_LINES_OF_WRITES = 3_000
"""The same, counted within writes only."""
NEW_REGISTRY_AFTER = 5
"""After so many kills the next registry begins, so that its first versions are killed in the middle too."""


def promote_for_ever(registry_path: Path, candidates: Sequence[Candidate], told: Path) -> None:
    """Writes and promotes one version after another, until killed; writes down each promotion that was reported as made."""
    registry = place_of(str(registry_path))
    while True:
        for candidate in candidates:
            versions.write(registry, candidate)
            with suppress(pointer.ConflictError):
                seen = pointer.read(registry, "bank")
                made = pointer.promote(registry, "bank", candidate.version, seen=seen)
                if made.move > seen.move:
                    with (told / str(os.getpid())).open("a") as file:
                        file.write(f"{made.move} {made.version}\n")


def check(registry: Place, before: Champion | None, told: Path) -> Champion:
    """Checks what the kill has left: whole versions, an unchanged past, and each move that was reported as made."""
    champion, known = pointer.read(registry, "bank"), versions.versions_of(registry, "bank")
    for version in known:
        versions.verify(registry, "bank", version)
    assert champion.version in ("", *known), "the champion is not there"
    if before:
        assert champion.history[: len(before.history)] == before.history, "the past was changed"
    assert [move.move for move in champion.history] == list(range(1, len(champion.history) + 1))
    by_move = {move.move: move.version for move in champion.history}
    for line in (line for file in told.iterdir() for line in file.read_text().splitlines()):
        move, _, version = line.partition(" ")
        assert by_move.get(int(move)) == version, f"{line} was reported as made, and the history says otherwise"
    return champion


def main() -> None:
    folder, times, seed, promoters = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    drawn, states, moves = random.Random(seed), set(), 0
    candidates = [versions.collect("bank", finished_run(folder / f"run{n}", seed=n)) for n in range(3)]
    before: Champion | None = None
    for number in range(times):
        if number % NEW_REGISTRY_AFTER == 0:
            path, before = folder / f"models{number}", None
            if number % (
                2 * NEW_REGISTRY_AFTER
            ):  # the children of every other registry find its versions there, and only promote
                for candidate in candidates:
                    versions.write(place_of(str(path)), candidate)
        told = folder / f"told{number}"
        told.mkdir()
        children = [fork(path, candidates, told, drawn) for _ in range(promoters)]
        for child in children:
            _, status = os.waitpid(child, 0)
            assert os.WIFSIGNALED(status), "the child ended by itself"
            assert os.WTERMSIG(status) == signal.SIGKILL
        before = check(place_of(str(path)), before, told)
        moves += before.move if (number + 1) % NEW_REGISTRY_AFTER == 0 else 0
        states.add((len(versions.versions_of(place_of(str(path)), "bank")), min(before.move, 3)))
    sys.stdout.write(
        f"{times} times, {promoters} at once; {moves} moves; versions and moves that were left: {sorted(states)}\n"
    )


def fork(path: Path, candidates: Sequence[Candidate], told: Path, drawn: random.Random) -> int:
    """Starts a child that is killed after so many lines of Python: by time, a busy machine would kill it before it has begun.

    Every other child counts only the lines within a write, where a kill would do the most harm.
    """
    writes_only = drawn.random() < 0.5
    left = drawn.randrange(MOST_LINES_OF_WRITES if writes_only else MOST_LINES)
    child = os.fork()
    if not child:
        writing = not writes_only

        def count(*_: Any) -> Any:
            nonlocal left
            left -= writing
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return count

        def write(self: DirectoryPlace, name: str, content: bytes, original: Any = DirectoryPlace.write) -> None:
            nonlocal writing
            writing = True
            original(self, name, content)
            writing = not writes_only

        DirectoryPlace.write = write  # type: ignore[method-assign]
        sys.settrace(count)
        promote_for_ever(path, candidates, told)
    return child


if __name__ == "__main__":
    main()
