"""Runs that are killed at random moments, and recipes and tables with something wrong in them.

    python benchmarks/faults.py [--json] [--quick] [--kills N] [--mutations N] [--seed N]

A killed run is resumed, perhaps killed again, and its weights are held against those of its own
copy from before the first step, which nobody disturbed. What is done and what must hold is in
`tests/stories/faults.py` and `tests/stories/mutations.py`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from rows import Row, show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "benchmarks"))

from tests.stories.faults import RECIPES, Story, story  # noqa: E402
from tests.stories.mutations import Case, Outcome, case, outcome, through_the_command  # noqa: E402

_A_STORY = 8  # kills at most
_TRAINED = 3  # of so many mutated inputs one is trained, where it can be


def main() -> None:
    """Kills, mutates, and prints what became of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--quick", action="store_true", help="6 kills, 150 mutations")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--mutations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    kills, mutations, commands = (
        (6, 150, 2) if chosen.quick else (chosen.kills, chosen.mutations, 50)
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NACRE_CACHE"] = f"{folder}/prices"  # nothing is left in the user's own
        stories = killed(Path(folder), kills, random.Random(chosen.seed))
        cases = [case(1_000_000 * chosen.seed + number) for number in range(mutations)]
        inside = followed(Path(folder), cases, _inside)
        outside = followed(Path(folder), cases[:commands], through_the_command)
    show([*of_kills(stories), *of_mutations(inside, outside)], chosen.json)


def killed(folder: Path, kills: int, draw: random.Random) -> list[Story]:
    """Stories of both kinds in turn, until there were so many kills."""
    stories: list[Story] = []
    for number, kind in enumerate(itertools.cycle(RECIPES)):
        left = kills - sum(len(told.kills) for told in stories)
        if left <= 0:
            break
        stories.append(story(kind, folder / f"story{number}", min(left, _A_STORY), draw))
        _complain(stories[-1].broken)
    return stories


def followed(
    folder: Path, cases: Iterable[Case], follow: Callable[[Case, Path], Outcome]
) -> list[Outcome]:
    """What becomes of mutated inputs, each in an empty folder of its own."""
    found: list[Outcome] = []
    for made in cases:
        with tempfile.TemporaryDirectory(dir=folder) as outer:
            place = Path(outer) / "case"
            place.mkdir()
            found.append(follow(made, place))
        _complain([f"case {made.number}: {fault}" for fault in found[-1].faults])
    return found


def _inside(made: Case, place: Path) -> Outcome:
    return outcome(made, place, train=made.number % _TRAINED == 0)


def _complain(faults: list[str]) -> None:
    for fault in faults:
        print(fault, file=sys.stderr)


def of_kills(stories: list[Story]) -> list[Row]:
    """One row a promise; a story's kills count as survived where nothing of it broke."""
    kills = sum(len(told.kills) for told in stories)
    survived = sum(len(told.kills) for told in stories if not told.broken)
    equal = sum(told.equal for told in stories)
    unverified = sum("the ledger:" in line for told in stories for line in told.broken)
    under = sum(told.under_counts for told in stories)
    return [
        Row("kills", kills),
        Row("kills survived", survived, target=f"{kills}", holds=survived == kills),
        Row("killed runs", len(stories)),
        Row(
            "killed runs with the undisturbed weights",
            equal,
            target=f"{len(stories)}",
            holds=equal == len(stories),
        ),
        _none("under-counts in a ledger", under),
        _none("ledgers that did not verify", unverified),
    ]


def of_mutations(inside: list[Outcome], outside: list[Outcome]) -> list[Row]:
    """How far the inputs came, and what should not have happened."""
    stray = sum("behind" in fault for made in inside for fault in made.faults)
    raised = sum(len(made.faults) for made in inside) - stray
    reached = [
        Row(f"mutated inputs {word}", sum(made.reached == word for made in inside))
        for word in ("refused", "planned", "read", "trained")
    ]
    return [
        Row("mutated inputs", len(inside)),
        *reached,
        _none("exceptions beside the one-line refusals", raised),
        _none("files or charges left without a run", stray),
        Row("mutated inputs through the command", len(outside)),
        _none("tracebacks, exit codes or files out of place", sum(len(o.faults) for o in outside)),
    ]


def _none(what: str, count: int) -> Row:
    return Row(what, count, target="0", holds=count == 0)


if __name__ == "__main__":
    main()
