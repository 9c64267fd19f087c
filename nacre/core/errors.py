"""Every error a person can meet, as one small tree.

    NacreError                  something failed                                     exit code 1
    ├── Refusal                 asked for something unsound or impossible            exit code 2
    │   ├── RecipeError         a recipe that cannot be read, with file, line and key
    │   ├── DataError           rows or files that do not fit what was declared
    │   ├── Incompatible        two choices that exclude each other
    │   ├── Unbounded           noise asked for on a sum whose bound is unknown
    │   ├── UnsupportedLayer    a layer that mixes units or that no gradient sum can carry
    │   ├── UnsupportedEvent    a mechanism that no pricer knows
    │   ├── BadArgument         an argument or option from Python that is not what is needed
    │   └── RunError            a run folder that exists, is missing, changed or ended
    ├── BudgetExceeded          a grant that does not cover what was asked           exit code 3
    ├── LedgerError             a ledger that is damaged or used against its rules   exit code 2
    ├── PartyError              a party that refused or did not answer               exit code 1
    │   └── BadKeys             keys, cards or a roster that are not what is needed  exit code 2
    ├── CallFailed              code that Nacre was given raised something           exit code 1
    ├── NotAsPlanned            a release that differs from what plan.json says      exit code 1
    ├── FileDamaged             a file that does not hold what was written           exit code 1
    └── Elsewhere               an error that another process of the run tells of    its exit code

A message is one sentence: what, where, why, and the remedy last. A `RecipeError` carries one for
each further fault that was found with it. `BadArgument` is a `ValueError`
as well; people who use recipes see it with file, line and key.
"""

from __future__ import annotations

from pathlib import Path


class NacreError(Exception):
    """Something failed; the message says what, where, why and what to do.

    The message is one line of printable text: names and values in it may come from a hostile file,
    and control characters would reach a terminal.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """White space as single blanks, anything unprintable as its escape."""
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


class Refusal(NacreError):
    """Nacre will not do what was asked, because it is unsound or impossible."""

    exit_code = 2


class RecipeError(Refusal):
    """A recipe that cannot be read; `str()` starts with file, line and key where known.

    `others` are the sentences of further faults that have nothing to do with this one, in the order
    of the file; a traceback shows them as notes.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        key: str | None = None,
        others: tuple[str, ...] = (),
    ) -> None:
        self.message, self.file, self.line, self.key = message, file, line, key
        self.others = tuple(one_line(other) for other in others)
        place = "" if file is None else f"{file}:{line}" if line is not None else f"{file}"
        name = "" if not key else f"`{key}`"
        head = " ".join(part for part in (place, name) if part)
        super().__init__(f"{head}: {message}" if head else message)
        for other in self.others:
            self.add_note(other)


class DataError(Refusal):
    """Rows or files that do not fit what the recipe declares.

    `column` is the column that it is about, where it is about one; with the recipe it leads to
    the key that names it.
    """

    def __init__(self, message: str, *, column: str | None = None) -> None:
        self.column = column
        super().__init__(message)


class Incompatible(Refusal):
    """Two choices that exclude each other, or a guarantee that would not hold.

    `key` is the option's own key that it is about, where it is about one, and stands in front of
    `message`; with the recipe it leads to the line.
    """

    def __init__(self, message: str, *, key: str = "") -> None:
        self.message, self.key = message, key
        super().__init__(f"`{key}`: {message}" if key else message)


class Unbounded(Refusal):
    """Noise was asked for on a sum whose bound is unknown."""


class UnsupportedLayer(Refusal):
    """A layer that mixes units, or that no gradient sum can carry."""


class UnsupportedEvent(Refusal):
    """A (sampling, noise) pair or an event that no pricer knows; never priced as zero."""


class BadArgument(Refusal, ValueError):
    """An argument of a call, or a field of an option, that is not of the form or range which is
    needed."""


class RunError(Refusal):
    """A run folder that exists, is missing, has changed or has ended."""


class BudgetExceeded(NacreError):
    """The grant of an account does not cover what was asked; nothing was charged."""

    exit_code = 3


class LedgerError(NacreError):
    """A ledger that is damaged, or that was used against its rules."""

    exit_code = 2


class PartyError(NacreError):
    """A party refused a request or did not answer it."""


class BadKeys(PartyError):
    """A key, a card, a roster or a signature of one's own side that is not what is needed."""

    exit_code = Refusal.exit_code


class CallFailed(NacreError):
    """Code that Nacre was given (a model, a loss, a data set, a collate function) raised something;
    what it raised is the cause."""


class NotAsPlanned(NacreError):
    """A release, or its record, that differs from what plan.json promises of it."""


class FileDamaged(NacreError):
    """A file that does not hold what was once written to it."""


class Elsewhere(NacreError):
    """Ends this process because the run has ended; its first process tells people why."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
