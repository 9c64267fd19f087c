"""Who holds data: bytes of a request in, bytes of a reply out, and no second answer to a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock

from nacre.core.errors import PartyError
from nacre.core.tensors import finite
from nacre.core.types import Release, Tensors
from nacre.federated_learning.answers import Answers, Remembered, Stored
from nacre.federated_learning.encodings import Encoding
from nacre.federated_learning.messages import Reply, RoundRequest, as_read, misfit
from nacre.federated_learning.secure.member import Member


def step_of(asked: RoundRequest) -> str:
    """The name of what is answered once."""
    return f"{asked.kind}-{asked.round:010d}"


class Party:
    """The only object that holds rows, through the two functions it is given.

    *Guarantee:* each (kind, round) is answered once. The reply is stored before it leaves; the
    identical request gets the stored bytes again; another request under a used number is refused,
    and so are rounds beyond the declared ones. Otherwise a server that sent one round twice with
    other weights could subtract the noise away, or go on after the budget is spent. A crash
    before the store releases nothing, so the step may then be computed anew.

    Everything else that decides what is released (mechanism, model, rows) is the party's own: a
    request carries weights, a round and the digest of a recipe, which has to be the party's.

    *Guarantee:* a round in which training failed is tried again with the same request alone. That
    it failed may follow from the rows, or from noise that nothing was charged for, and a server
    that could go on to other weights until one does not fail would count such answers for free.

    *Guarantee:* with `member` its changes leave inside secure sums alone: a request for one in the
    open is refused, whatever the server says.
    """

    def __init__(
        self,
        name: str,
        train: Callable[[Tensors, int], Release],  # weights, round -> weights after - before
        evaluate: Callable[[Tensors], Release] | None = None,  # public or priced figures only
        *,
        recipe: str,  # hex digest of the party's own recipe
        rounds: int,  # how many it agreed to
        like: Tensors,  # names and shapes of what a request holds
        store: Path | None = None,  # a folder of its own; None remembers in memory alone
        key: bytes | None = None,  # of 32 bytes: what is stored is encrypted under it
        encoding: Encoding = "float32",  # of its replies; holds what `train` gives without loss
        answers: Answers | None = None,  # in place of both: where several parties keep theirs
        member: Member | None = None,  # its side of the secure sums; None: replies are in the open
    ) -> None:
        if (store is None) != (key is None):
            raise ValueError("store and key are given together or not at all")
        self.name = name
        self._train, self._evaluate = train, evaluate
        self._recipe, self._rounds = recipe, rounds
        self._shapes, self._member = like, member
        self._encoding: Encoding = encoding
        self._answers: Answers = answers or (
            Remembered() if store is None or key is None else Stored(store, key)
        )
        self.sent = 0
        """Bytes of its last reply."""
        self._alone = answers is None  # elsewhere a failure ends the process of all parties
        self._lock = Lock()  # two requests under one number must not both find it unused

    def handle(self, request: bytes) -> bytes:
        """The bytes of a `Reply`, or of the secure sum's reply.

        Raises `PartyError` for what it does not answer, and whatever training raises (as
        `BudgetExceeded`); in both cases nothing was released.
        """
        if self._member is not None:
            with self._lock:
                return self._member.handle(request, self._answers, self._trained)
        asked = RoundRequest.from_bytes(request)
        return self._once(asked, asked.digest())[1]

    def reply(
        self,
        asked: RoundRequest,  # that bytes hold without loss
        entered: bytes,  # its digest
    ) -> Reply:
        """The `Reply` of which `handle` gives the bytes, for a server in the same process: there
        the request is read once for all parties, and no reply is read at all."""
        reply, data = self._once(asked, entered)
        if reply is None or not as_read(reply.tensors):
            return Reply.from_bytes(data, asked.weights)
        return reply

    def _once(self, asked: RoundRequest, entered: bytes) -> tuple[Reply | None, bytes]:
        """The reply and its bytes; the bytes alone where they were stored."""
        self._check(asked)
        step = step_of(asked)
        with self._lock:
            known = self._answers.get(step)
            if known is not None:
                again = self._again(asked, entered, *known)
                self.sent = len(again)
                return None, again
            reply = self._answered(asked)
            data = reply.to_bytes()
            self.sent = len(data)
            self._answers.put(step, entered, data)
            return reply, data

    def _trained(self, asked: RoundRequest) -> Release:
        self._check(asked)
        return self._tried(asked, lambda: self._train(asked.tensors, asked.round))

    def _tried(self, asked: RoundRequest, compute: Callable[[], Release]) -> Release:
        """What `compute` gives. Raises what it raises, which is remembered, and `PartyError` where
        it has raised for another request of this round."""
        if not self._alone:
            return compute()
        step, entered = f"failed-{step_of(asked)}", asked.digest()
        failed = self._answers.get(step)
        if failed is not None and failed[0] != entered:
            raise self._refusal(
                asked,
                "it could not answer this round for other weights, and whether it can for these "
                "would tell of its rows; leave it out of this round",
            )
        try:
            return compute()
        except Exception:
            if failed is None:
                self._answers.put(step, entered, b"")
            raise

    def _check(self, asked: RoundRequest) -> None:
        if asked.recipe != self._recipe:
            raise self._refusal(asked, "it belongs to another recipe; start all with the same one")
        last = self._rounds - 1 if asked.kind == "train" else self._rounds
        if asked.round > last:
            raise self._refusal(asked, f"{self._rounds} rounds were agreed; start another run")
        fault = misfit(asked.tensors, self._shapes)
        if fault is not None:
            raise self._refusal(asked, f"{fault}; build the same model on both sides")
        if not asked.finite:
            raise self._refusal(asked, "its weights are not finite; the run has diverged")

    def _again(self, asked: RoundRequest, entered: bytes, known: bytes, reply: bytes) -> bytes:
        """The stored reply to the identical request."""
        if known != entered:
            raise self._refusal(
                asked,
                "this round was answered for other weights, and a second answer would give the "
                "noise away; resume the run from its own checkpoint",
            )
        return reply

    def _answered(self, asked: RoundRequest) -> Reply:
        if asked.kind == "train":
            release = self._tried(asked, lambda: self._train(asked.tensors, asked.round))
        elif self._evaluate is not None:
            evaluate = self._evaluate
            release = self._tried(asked, lambda: evaluate(asked.tensors))
        else:
            raise self._refusal(asked, "it has no rows that it may score; score on the server")
        # A change that is not finite travels as it is: the server leaves it out, and says so.
        encoding: Encoding = self._encoding
        if encoding != "float32" and not finite(release.total):
            encoding = "float32"
        return Reply(asked.kind, asked.round, self.name, release.total, release.how, encoding)

    def _refusal(self, asked: RoundRequest, reason: str) -> PartyError:
        return PartyError(
            f"party {self.name!r} refuses to {asked.kind} in round {asked.round}: {reason}"
        )
