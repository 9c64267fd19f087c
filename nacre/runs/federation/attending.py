"""A party in its own house: its rows, its plan, its policy, its ledger, and a run it takes part in.

The folder of a party is a run folder: `local/` has its keys and its encrypted replies, `plan.json`
its own level alone. It takes part in one run; what it may be asked is decided by its own recipe.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from nacre.core.errors import Incompatible, PartyError, RunError
from nacre.core.random import Source
from nacre.core.run_folder import RunFolder, create, reopen
from nacre.core.tensors import detached
from nacre.core.types import Release, Tensors
from nacre.data.text.token_cache import Aids, TokenCache
from nacre.federated_learning import AllParties, FederatedLearning, Party
from nacre.federated_learning.local.between_rounds import personal_of
from nacre.federated_learning.local.kept import Memories, Memory
from nacre.federated_learning.messages import RoundRequest, misfit
from nacre.federated_learning.roster import Identity, Roster
from nacre.federated_learning.secure import SecureGather
from nacre.federated_learning.secure.member import Member
from nacre.planning.plan import Plan, covered, plan
from nacre.recipe.load import dumps
from nacre.recipe.schema import Recipe
from nacre.runs import reservations, rows
from nacre.runs.evaluation.personal import write_own_home
from nacre.runs.features import passed
from nacre.runs.federation.agreed import agreed_digest
from nacre.runs.federation.memory import server_memory
from nacre.runs.federation.policy import Policy
from nacre.runs.federation.sums import sum_terms
from nacre.runs.progress import Progress, Silent, stages
from nacre.runs.provenance import code
from nacre.runs.rows import Holdings
from nacre.runs.start import starting_model
from nacre.runs.workers.rounds import FILE, RoundLog, noted
from nacre.training.devices.group import Group
from nacre.training.fit import Journal, NoJournal
from nacre.training.holders import Setting, Workplace, fixed
from nacre.training.local.personal import personal_names, shared_weights
from nacre.training.pieces import physical_memory
from nacre.training.planned import PlannedLevels


def party_plan(recipe: Recipe, name: str) -> Plan:
    """The plan of one party: its own level, priced; of a run that protects whole parties, theirs
    together, or both. Raises as `plan` does, and `RunError` for a name that the recipe does not
    have."""
    found = plan(recipe, ledger=False)
    federation = recipe.federated_learning
    if federation is None:
        raise Incompatible(
            "the recipe has no federated_learning section, so it has no parties; train it by "
            "`nacre train`"
        )
    if found.alternatives:
        raise Incompatible("a search is made in one house; leave `tune` out of the recipe")
    if name not in federation.parties.names:
        known = ", ".join(federation.parties.names[:8])
        raise RunError(f"the recipe has no party {name!r}; it names {known}")
    own = tuple(level for level in found.levels if level.name in ("", name))
    return replace(found, levels=own)


def draws_parties(recipe: Recipe) -> bool:
    """Whether a round asks some of the parties, drawn by coins."""
    federation = recipe.federated_learning
    return federation is not None and not isinstance(federation.cohort, AllParties)


def public_source(digest: str) -> Source:
    """Of the randomness of public training, the same on every side that follows this recipe."""
    return Source(hashlib.sha256(f"nacre public base {digest}".encode()).digest())


@dataclass(frozen=True)
class _Rounds:
    """A journal that counts rounds: where whole parties are protected, a round is one step."""

    charge: Journal
    steps: int  # of a round

    def journal(self, step: int, entered: str) -> None:
        """See `Journal.journal`."""
        self.charge.journal(step // self.steps, entered)


@dataclass(frozen=True)
class _InTurn:
    """A journal that writes into several, one after another."""

    journals: tuple[Journal, ...]

    def journal(self, step: int, entered: str) -> None:
        """See `Journal.journal`."""
        for each in self.journals:
            each.journal(step, entered)


class Attending:
    """A party that waits for its run and takes part in it. Close it when it has left.

    Making one asks the policy, prices the plan and reads the rows; nothing is charged or written
    before the server's first signed word. Raises what these raise.
    """

    def __init__(
        self,
        recipe: Recipe,
        name: str,
        into: Path,
        policy: Policy,
        *,
        observe: Progress | None = None,
    ) -> None:
        self.recipe = agreed_digest(recipe)
        policy.require_recipe(self.recipe)
        self.over = False
        self._name, self._policy = name, policy
        self._watch = observe or Silent()
        self._folder = RunFolder(into)
        self._open = ExitStack()
        self._party: Callable[[bytes], bytes] | None = None
        self._run = ""
        self._take_home: Callable[[bytes], None] | None = None
        self._log, self._trained = RoundLog(self._folder.local / FILE, 1), list[int]()
        self._known: tuple[Identity, Roster] | None = None
        again = self._folder.recipe.exists()
        run = (reopen(into).name(), into) if again else None
        self._plan = party_plan(recipe, name)
        policy.require(self._plan, self.recipe, name)
        self._plan = covered(self._plan, run)
        self._key = self._folder.key(self._folder.holder_key) if again else os.urandom(32)
        self._held = self._read(self._key)
        if again:
            self._unchanged()
        for note in self._held.notes:
            self._watch.tell(note)

    def known_as(self, identity: Identity, roster: Roster) -> None:
        """By what the others know this party: secure sums are signed by it."""
        self._known = (identity, roster)

    def join(self, run: str, frozen: str) -> None:
        """See `Attendance.join`. The budget of the whole run is reserved here, by this process."""
        self._policy.require_now()
        self._enter(run, frozen)

    def _enter(self, run: str, frozen: str) -> None:
        if self._run == run:
            return
        if self._run or (self._folder.recipe.exists() and self._folder.name() != run):
            raise PartyError(
                f"party {self._name!r} takes part in another run; it is started anew, with another "
                "`--into`, for this one"
            )
        self._policy.require(self._plan, self.recipe, self._name)
        if not self._folder.recipe.exists():
            self._made(run, frozen)
        try:
            self._party = self._opened(frozen)
        except BaseException:
            self._open.close()
            raise
        self._run = run
        self._watch.tell(f"party {self._name!r} takes part in run {run!r}")

    def handle(self, run: str, request: bytes) -> bytes:
        """See `Attendance.handle`. A party that was started anew goes on in its folder's run."""
        self._policy.require_now()
        self._go_on(run)
        if self._party is None or run != self._run:
            raise PartyError(f"party {self._name!r} has not joined this run; resume the server")
        reply = self._party(request)
        if self._trained:  # and not answered from its store, nor asked for keys alone
            self._log.end(self._trained.pop() + 1, 1, {self._name: len(reply)})
        return reply

    def _go_on(self, run: str) -> None:
        """Takes part again in the folder's run, where an earlier process joined it."""
        if self._party is None and self._folder.recipe.exists() and self._folder.name() == run:
            self._enter(run, str(self._folder.fact("frozen")))

    def leave(self, run: str, common: bytes) -> None:
        """See `Attendance.leave`. The party's own model is written where it has layers of its own,
        the account settled by its own rule, the key destroyed; also where the process that joined
        has been killed since."""
        if not self.over:
            self._go_on(run)
        if run == self._run and not self.over:
            if self._take_home is not None:
                self._take_home(common)
            self._charges.settle()
            self.close()
            self._folder.destroy_key()
            self._party, self.over = None, True
            self._watch.tell(f"run {run!r} is over")

    def close(self) -> None:
        """Lets go of folder and ledger; what was reserved stands."""
        self._open.close()

    def _read(self, key: bytes) -> Holdings:
        with stages(self._watch) as advance:
            kept = self._folder.local if self._folder.local.exists() else None
            return rows.read(
                self._plan.recipe, key, Aids(TokenCache(kept), advance), holder=self._name
            )

    def _unchanged(self) -> None:
        """Raises `RunError` where recipe, code or rows are not those that the party joined with."""
        facts = {
            "recipe": self._plan.digest,
            "code": code(self._plan.recipe),
            "hmac": self._held.hmac,
            "party": self._name,
        }
        for fact, found in facts.items():
            if self._folder.fact(fact) != found:
                raise RunError(
                    f"the {fact} is not that with which {self._folder.path} joined its run, so its "
                    "replies would not come out the same; put it back, or take another `--into`"
                )
        self._folder.source()  # raises where it has ended

    def _made(self, run: str, frozen: str) -> None:
        recipe = self._plan.recipe
        facts = {
            "run": run,
            "frozen": frozen,
            "party": self._name,
            "hmac": self._held.hmac,
            "folder": str(recipe.folder.resolve()),
            "recipe": self._plan.digest,
            "code": code(recipe),
            "threads": str(recipe.execution.threads or torch.get_num_threads()),
            "memory": str(physical_memory()),
            "compiled": "yes" if self._plan.estimate.compiled else "no",
        }
        text = recipe.source if recipe.source is not None else dumps(recipe).encode()
        create(self._folder.path, text, self._plan.to_json(), facts, self._key)

    def _opened(self, frozen: str) -> Callable[[bytes], bytes]:
        """What answers requests. Raises `PartyError` where the model's frozen part differs, and as
        the ledger does."""
        folder, whole = self._folder, self._plan
        self._open.enter_context(folder.locked())
        source = _source_of(folder, whole, self._held.hmac)
        setting = Setting(
            whole.recipe,
            self._held.schema,
            self._held.space,
            int(folder.fact("memory")),
            folder.fact("compiled") == "yes",
        )
        base = starting_model(
            setting, self._held, public_source(self.recipe), folder, self._watch, Group()
        )
        setting, held, part = passed(setting, self._held, base, self._watch)
        if fixed(part).hex() != frozen:
            raise PartyError(
                "the weights that nobody moves are not those of the server: start all sides from "
                "the same base, with the same versions of nacre and torch"
            )
        self._charges = self._open.enter_context(self._reserved())
        option = whole.recipe.federated_learning
        assert option is not None
        journals: list[Journal] = []
        if self._name in self._charges:
            journals.append(self._charges[self._name])
        if "" in self._charges:
            journals.append(_Rounds(self._charges[""], option.local.steps))
        journal = _InTurn(tuple(journals)) if journals else NoJournal()
        keyed = source.child("party", self._name)
        planned = PlannedLevels.of(whole.to_json()).over(self._name)
        folder.parties.mkdir(exist_ok=True)
        own = personal_names(option.local.personal, part)
        weights = detached(shared_weights(part, own))
        memory = Memories(folder.parties, source).of(self._name)
        if own:
            self._take_home = partial(self._own_model, part, weights, memory)
        place = Workplace(setting, part)
        train = noted(
            place.training(
                whole.inner(self._name), held.private[self._name], keyed, journal, planned, memory
            ),
            self._name, self._log, lambda: place.loss,
        )  # fmt: skip

        def train_and_note(weights: Tensors, number: int) -> Release:
            release = train(weights, number)
            self._trained.append(number)
            return release

        return Party(
            self._name,
            train_and_note,
            recipe=self.recipe,
            rounds=option.rounds,
            like=server_memory(whole, weights).sent(weights),
            store=folder.parties / self._name,
            key=source.secret("replies", self._name),
            encoding=option.encoding,
            member=self._member(option, keyed, weights),
        ).handle  # fmt: skip

    def _own_model(self, model: nn.Module, like: Tensors, memory: Memory, common: bytes) -> None:
        """Writes this party's model: the last common weights, and its own layers. Without weights
        that fit there is none, which its terminal hears: the run is over all the same."""
        layers, weights = personal_of(memory.before(_AFTER_ALL)), Tensors()
        try:
            asked = RoundRequest.from_bytes(common)
            weights = asked.tensors
            fault = misfit(weights, like)
            if fault is None and not (asked.finite and layers):
                fault = "they are not finite" if layers else "this party took part in no round"
        except PartyError as error:
            fault = str(error)
        if fault is not None:
            self._watch.tell(f"the run is over and left this party no model of its own: {fault}")
            return
        recipe, path = self._plan.recipe, self._folder.path
        place = write_own_home(recipe, self._held, path, self._name, model, weights, layers)
        self._watch.tell(f"this party's own model lies in {place}")

    def _member(self, option: FederatedLearning, keyed: Source, like: Tensors) -> Member | None:
        """This party's side of the secure sums, where its own recipe says so."""
        if not isinstance(option.gather, SecureGather):
            return None
        outer, known = self._plan.outer, self._known
        assert outer is not None
        assert known is not None  # `attend` has said it
        terms = sum_terms(
            option, option.gather, known[1], self._folder.name(), self.recipe, outer, like
        )
        return Member(known[0], terms, outer.clip, keyed.secret("secure sum"))

    def _reserved(self) -> reservations.Charges:
        folder, held = self._folder, self._held
        parts = {level.name: held.cells for level in self._plan.priced}
        made = reservations.reserve(
            self._plan, folder.name(), folder.path, new=not folder.reserved, cells=held.cells,
            parts=parts, drawn=draws_parties(self._plan.recipe),
        )  # fmt: skip
        if not folder.reserved:
            folder.mark_reserved()
        return made


_AFTER_ALL = 2**31  # no round has this number


def _source_of(folder: RunFolder, whole: Plan, hmac: str) -> Source:
    """Of the party's secret randomness, bound to all that a step computes from."""
    return folder.source().child("run", whole.digest, hmac, str(folder.fact("code")))
