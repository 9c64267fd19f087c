"""The parties of a run, all in this process or in its workers, made when a round asks them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from torch import Tensor, nn

from nacre.core.random import Source
from nacre.core.run_folder import RunFolder
from nacre.core.types import Release, Tensors
from nacre.data.dataset import Rows
from nacre.data.partition import Dealt
from nacre.federated_learning import OnDemand, Party, Plain, SecureGather
from nacre.federated_learning.answers import Answers, Remembered, RoundFiles, Stored
from nacre.federated_learning.local.between_rounds import personal_of
from nacre.federated_learning.local.kept import Memories
from nacre.federated_learning.messages import RoundRequest, without_control
from nacre.federated_learning.secure import KeysInProcess
from nacre.federated_learning.secure.member import Member
from nacre.federated_learning.secure.sums import Secure
from nacre.federated_learning.transport import RoundCount
from nacre.planning.plan import Plan
from nacre.planning.shares_of_noise import noised_grid
from nacre.runs.rows import Holdings, holder_names
from nacre.runs.workers.pool import Job, Pool, Stack, Trained
from nacre.runs.workers.rounds import FILE, RoundLog, Took
from nacre.training.fit import Journal
from nacre.training.holders import AtWork, Setting, Workplace
from nacre.training.local.stacked import stacks_of
from nacre.training.local.trial import require_fit
from nacre.training.planned import PlannedLevels


class Names:
    """The parties as units: which of them a round asks."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def numbers(self, indices: Tensor) -> Tensor:
        """Their places: all parties are asked by one process."""
        return indices

    def micro(self, indices: Tensor, size: int | None) -> Iterator[tuple[str, ...]]:
        """The drawn names at once: a gather needs to see them together."""
        if len(indices):
            drawn: list[int] = indices.tolist()
            yield tuple(self._names[i] for i in drawn)


class Parties:
    """Makes a party where one is asked, and lets workers train those of a round beforehand.

    So of a party that is not asked nothing is kept but where its rows are.
    """

    def __init__(
        self, plan: Plan, setting: Setting, held: Holdings, model: nn.Module, source: Source,
        charge: Callable[[str], Journal], planned: PlannedLevels, folder: Path | None,
        like: Tensors,
    ) -> None:  # fmt: skip
        """`like` has the names and shapes of what a request holds. In `model` all still moves that
        training moves, layers of the parties' own too."""
        option = plan.recipe.federated_learning
        assert option is not None
        secure = option.gather if isinstance(option.gather, SecureGather) else None
        # Where nothing is private a second answer gives nothing away, and is the same bits.
        once = plan.private or option.remembers or secure is not None
        store = RunFolder(folder).parties if folder is not None and once else None
        key = None if store is None else source.secret("replies")
        self._plan, self._setting, self._option = plan, setting, option
        self._held, self._source = held, source
        self._charge, self._planned = charge, planned
        self._like = like
        if plan.recipe.execution.stacked is not None:  # the plan may be of another machine
            require_fit(plan.recipe, setting.schema, setting.space, model)
        self._place = Workplace(setting, model)
        self._answers = RoundFiles(store, key)
        self._memories = Memories(store, source)
        self._keys: KeysInProcess | None = None
        if secure is not None:
            assert plan.outer is not None
            self._keys = KeysInProcess.of(
                secure, source, tuple(option.parties.names), plan.digest, option.rounds,
                plan.outer.clip, without_control(like), noised_grid(plan.outer),
            )  # fmt: skip
        self._store = store
        self._members: dict[str, tuple[Member, Answers]] = {}
        file = None if folder is None else RunFolder(folder).local / FILE
        self._rounds, self._ended = RoundLog(file, len(option.parties.names)), RoundCount(0, 0, 0)
        self._pool: Pool | None = None
        self._trained: dict[str, Trained] = {}

    def personal(self, name: str) -> Tensors:
        """A party's own layers as its last round left them; empty where it took part in none."""
        return personal_of(self._memories.of(name).before(self._option.rounds))

    def transport(self) -> OnDemand:
        """The way to the parties."""
        names = holder_names(self._held.private)
        return OnDemand(names, self.party, self._answers, before=self._beforehand)

    def by_workers(self, count: int, model: nn.Module, stack: ExitStack) -> None:
        """Lets `count` processes train, this one among them, until the stack is left."""
        dealt = self._held.private
        if self._keys is not None:  # the request of a secure sum is each party's own
            return
        if count < 2 or not isinstance(dealt, Dealt):
            return
        self._pool = Pool(
            count - 1,
            self._setting,
            self._held.scaler,
            dealt,
            model,
            self._like,
            self._source.for_worker(),
            self._place.built(),
        )
        stack.callback(self._pool.close)

    def party(self, name: str) -> Party | None:
        """The party of this name; None where there is none."""
        rows: Mapping[str, Rows] = self._held.private
        if name not in rows:
            return None

        def train(weights: Tensors, round_number: int) -> Release:
            known = self._trained.pop(name, None)
            known = known or self._here((name,), weights, round_number)[name]
            if known.took is not None:
                self._rounds.took(name, known.took)
            for step, entered in known.journal:
                self._charge(name).journal(step, entered)
            if known.kept is not None:
                self._memories.of(name).keep(round_number, known.kept)
            return known.release

        member, answers = self._member(name)
        return Party(
            name,
            train,
            recipe=self._plan.digest,
            rounds=self._option.rounds,
            like=self._like,
            answers=answers,
            encoding=self._option.encoding,
            member=member,
        )

    def heard(self, wire: OnDemand, done: int, *, counted: bool) -> str:
        """The last round in words, none of them private, after its figures were kept in `local/`;
        with `counted` how many answered."""
        last = wire.last if wire.last is not self._ended else RoundCount(0, 0, 0)  # nobody asked
        self._ended = wire.last
        self._rounds.end(done, last.asked, last.replies)
        return wire.last.words(counted=counted)

    def gather(self, expected: float) -> Plain | Secure:
        """How the replies come together."""
        option = self._option.gather
        if isinstance(option, SecureGather):
            assert self._keys is not None
            return self._keys.gather(expected)
        return option.build(expected)

    def _member(self, name: str) -> tuple[Member | None, Answers]:
        """A party's side of the secure sums, and where its answers are kept. A secure sum asks
        several things a round, and each answer has to be there for the next: so each party has
        files of its own."""
        if self._keys is None:
            return None, self._answers.of(name)
        if name not in self._members:
            answers: Answers = Remembered()
            if self._store is not None:
                answers = Stored(self._store / name, self._source.secret("replies", name))
            self._members[name] = self._keys.member(name), answers
        return self._members[name]

    def _training(self, name: str, charge: Journal) -> AtWork:
        own = self._source.child("party", name)
        return self._place.training(
            self._plan.inner(name), self._held.private[name], own, charge, self._planned.over(name),
            self._memories.of(name),
        )  # fmt: skip

    def _beforehand(self, request: RoundRequest, cohort: Sequence[str], step: str) -> None:
        """Lets all parties of a round train that have not answered it, side by side or together.
        Who is trained together follows from the cohort, so a round that is resumed has its bits."""
        stacked = self._plan.recipe.execution.stacked
        if self._pool is None and stacked is None:
            return
        stacks = [(name,) for name in cohort] if stacked is None else stacks_of(cohort, stacked)
        left = [s for s in stacks if any(self._answers.get(name, step) is None for name in s)]

        def here(stack: Stack) -> dict[str, Trained]:
            return self._here(stack, request.tensors, request.round)

        if self._pool is None:
            self._trained = {name: one for stack in left for name, one in here(stack).items()}
        else:
            self._trained = self._pool.trained(
                request.tensors, left, lambda name: self._job(name, request.round), here
            )

    def _here(self, stack: Stack, weights: Tensors, round_number: int) -> dict[str, Trained]:
        """What parties compute in this process, which journals it at once."""
        parties = [self._training(name, self._charge(name)) for name in stack]
        begun = time.perf_counter()
        if self._plan.recipe.execution.stacked is None:
            releases = [party(weights, round_number) for party in parties]
        else:
            releases = self._place.together(parties, weights, round_number)
        took = Took.of_stack(releases, begun, self._place.loss)
        trained = zip(stack, releases, took, strict=True)
        return {name: Trained(release, took=each) for name, release, each in trained}

    def _job(self, name: str, round_number: int) -> Job:
        dealt = self._held.private
        assert isinstance(dealt, Dealt)
        places, planned = dealt.places(name), self._planned.over(name)
        group = dealt.rows.group
        mechanism = self._plan.inner(name)
        header = {
            "party": name,
            "round": round_number,
            "size": self._plan.size_of(name),
            "multiplier": mechanism.noise.multiplier,
            "how": planned.how,
            "planned": dict(planned.party),
            "group": None if group is None else [group[place] for place in places.tolist()],
        }
        before: Tensors = {}
        if self._option.remembers:
            before = self._memories.of(name).before(round_number)
        return Job(header, places.tobytes(), before)


_LONG = 20.0
"""Seconds of steps from which on workers pay: each takes about two to start."""


def workers_of(plan: Plan) -> int:
    """How many processes train the parties: as the recipe says; otherwise one a core, where the
    steps of the whole run take long and a round has parties for all of them. Never where the cores
    are one, or the system has no memory without a name."""
    federation = plan.recipe.federated_learning
    if federation is None or not hasattr(os, "memfd_create"):
        return 1
    asked = plan.recipe.execution.workers
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    enough = int(federation.expected() // 2)
    return max(1, min(cores, enough)) if plan.estimate.seconds >= _LONG else 1
