"""`nacre ledger`."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from nacre.cli.output import common_options, debug_option, show
from nacre.differential_privacy.upward import rounded_up

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    from nacre.ledger import AccountSummary, GrantSummary

# Named here and not taken from `nacre.core.types`, whose import of torch `--help` need not wait
# for; a test compares them.
UNITS = ("example", "group", "client")
RULES = ("rdp", "zcdp", "pld")
ADJACENCIES = ("add_or_remove", "replace_one", "zero_out")


@click.group(short_help="Show, grant or verify privacy budgets.")
@debug_option
def command() -> None:
    """Show, grant or verify the privacy budgets in a ledger.

    DB is a file, or a URL of PostgreSQL: postgresql://USER@HOST/DATABASE."""


@command.command("show", short_help="Accounts: granted, spent, left.")
@click.argument("db")
@click.argument("account", required=False)
@click.option("--all", "each", is_flag=True, help="A row for each party of a data set.")
@common_options
def show_accounts(db: str, account: str | None, each: bool, as_json: bool) -> None:
    """Show what the accounts in DB were granted, what is spent and reserved, and what is left.

    Accounts of many parties of one data set with one grant share a row, with the least and the
    greatest figure, unless --all is given; --json lists them all. On a terminal a bar shows each
    grant: spent, reserved by runs that are open, left."""
    from nacre.ledger import Ledger

    with Ledger.open(db) as book:
        names = book.accounts() if account is None else (account,)
        accounts = [book.summary(name) for name in names]
        head = book.head()
    document = {"accounts": [asdict(one) for one in accounts], "head": head._asdict()}
    show(document, _table(accounts, each), as_json)


@command.command(short_help="Grant an account a budget, or raise one.")
@click.argument("db")
@click.argument("account")
@click.option("--epsilon", type=float, required=True, help="The whole allowance.")
@click.option("--delta", type=float, required=True, help="How likely epsilon may fail.")
@click.option("--unit", type=click.Choice(UNITS), default="example", show_default=True)
@click.option("--rule", type=click.Choice(RULES), default="rdp", show_default=True)
@click.option(
    "--adjacency", type=click.Choice(ADJACENCIES), default="add_or_remove", show_default=True
)
@click.option("--column", help="The column whose values tell units apart; for `--unit group`.")
@common_options
def grant(
    db: str,
    account: str,
    epsilon: float,
    delta: float,
    unit: str,
    rule: str,
    adjacency: str,
    column: str | None,
    as_json: bool,
) -> None:
    """Grant ACCOUNT in DB a budget, as the owner of its data; DB is made where it is absent. An
    epsilon above what stands raises it; nothing else about a grant can be changed."""
    from nacre.core.errors import Refusal
    from nacre.ledger import Ledger, grant_of

    if unit == "group" and not column:
        raise Refusal(
            "a grant for groups holds for the values of one column, and none is named; add it, as "
            "`--column patient`"
        )
    asked = (
        cast(Any, unit), epsilon, delta, cast(Any, rule), cast(Any, adjacency),
        unicodedata.normalize("NFC", column or ""),
    )  # fmt: skip
    grant_of(*asked)  # refused before a ledger is made for it
    with Ledger.open(db, create=True) as book:
        new = book.grant(account, *asked)
        summary = book.summary(account)
    document = {"new": new, "account": asdict(summary)}
    show(document, _table([summary]), as_json)


@command.command(short_help="Export the signed head of a ledger.")
@click.argument("db")
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    help="File of the signing key; made, readable by you alone, where it is absent.  "
    "[default: signing.pem in your configuration folder]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the head here.")
@common_options
def head(db: str, key: Path | None, output: Path | None, as_json: bool) -> None:
    """Export the head of DB, signed: number and hash of its last entry, which stand for all.

    Keep it with somebody who cannot write DB: `nacre ledger verify DB --against HEAD.json` then
    finds entries that were cut off, rolled back or rewritten. The first head of a signer adds an
    entry with their public key. Who has DB without the key cannot sign; who has the key without DB
    cannot hide a thing from heads that others keep."""
    from nacre.core.errors import Refusal
    from nacre.core.files import write_json
    from nacre.ledger import Ledger

    if output is not None and not output.parent.is_dir():
        raise Refusal(f"{output} has no folder to lie in; choose another file with `-o`")
    with Ledger.open(db) as book:
        kept = book.sign_head(key)
        name = book.name
    if output is not None:
        write_json(output, kept.to_json())
    people = f"{name}, entry {kept.number}: {kept.hash}\nsigned by {kept.signer}"
    show(kept.to_json(), people, as_json)


@command.command(short_help="Check that nothing in a ledger was changed.")
@click.argument("db")
@click.option("--against", metavar="HEAD", help="A head that was kept elsewhere: file or hash.")
@click.option("--signer", metavar="KEY", help="Public key in hex that must have signed HEAD.")
@click.pass_context
@common_options
def verify(
    context: click.Context, db: str, against: str | None, signer: str | None, as_json: bool
) -> None:
    """Check the whole of DB: the file, the chain of hashes, the rules and every price.

    Entries that were cut off at the end are found only --against a head that was kept elsewhere:
    a file of `nacre ledger head`, or the hash that every report prints. Exit code 2 if anything is
    wrong."""
    from nacre.core.errors import LedgerError
    from nacre.ledger import Ledger, kept_head

    kept = None if against is None else kept_head(against)
    with Ledger.open(db) as book:
        found = book.verify(kept, signer)
        head = None if found else book.head()
        name = book.name
    if head is None:
        people = "\n".join(found)
    else:
        checked = "" if kept is None else " and holds all that the kept head saw"
        people = f"{name} agrees with itself{checked}; head {head.number} {head.hash}"
    document = {"verified": not found, "findings": found, "head": head and head._asdict()}
    show(document, people, as_json)
    if found:
        context.exit(LedgerError.exit_code)


def _table(accounts: list[AccountSummary], each: bool = True) -> Table:
    from rich.table import Table
    from rich.text import Text

    from nacre.core.errors import one_line
    from nacre.planning.words import first_of, spread

    table = Table("account", "unit", "granted", "spent", "of the grant", "fits", "runs")
    folded = False
    for those in _rows(accounts, each):
        given = [grant for _, grant in those]
        folded = folded or len(those) > 1
        bars = {(grant.spent, grant.reserved) for grant in given}
        taken = spread([grant.spent + grant.reserved for grant in given], _whole)
        if any(grant.reserved for grant in given):
            taken += f", of it {spread([grant.reserved for grant in given], _whole)} reserved"
        more = sorted(given, key=lambda grant: grant.epsilon_fits or 0.0)
        table.add_row(
            Text(one_line(first_of([account.account for account, _ in those]))),
            given[0].unit,
            f"epsilon {given[0].epsilon:g}, delta {given[0].delta:g} ({given[0].rule})",
            spread([grant.epsilon_spent for grant in given], lambda spent: rounded_up(spent, 3)),
            taken if len(bars) > 1 else _Bar(given[0].spent, given[0].reserved),
            " to ".join(dict.fromkeys([_more(more[0]), _more(more[-1])])),
            spread([len(account.runs) for account, _ in those], lambda count: f"{count:g}"),
        )
    rules = {given.rule for account in accounts for given in account.grants}
    captions = [_FOLDED] * folded
    captions += [_ADDED] * (rules != {"pld"} and bool(rules)) + [_ORDER] * ("rdp" in rules)
    table.caption, table.caption_justify = " ".join(captions) or None, "left"
    return table


def _rows(
    accounts: list[AccountSummary], each: bool
) -> Iterator[list[tuple[AccountSummary, GrantSummary]]]:
    """The grants that share a row: each by itself, or those of many parties of one data set."""
    grants = [(account, given) for account in accounts for given in account.grants]
    alike: dict[tuple[object, ...], list[tuple[AccountSummary, GrantSummary]]] = {}
    for account, given in grants:
        data, _, party = account.account.rpartition("/")
        of = data if data and party else account.account
        grant = (given.unit, given.epsilon, given.delta, given.rule, given.adjacency)
        alike.setdefault((of, *grant), []).append((account, given))
    for those in alike.values():
        if each or len(those) <= _FEW:
            yield from ([one] for one in those)
        else:
            yield those


def _whole(share: float) -> str:
    return f"{share:.0%}"


def _more(given: GrantSummary) -> str:
    """What fits, rounded down: a run of that epsilon is accepted."""
    if given.epsilon_fits is None:
        return "see the plan"
    least = math.floor(given.epsilon_fits * 100) / 100
    return f"{least:g}" if least > 0 else "none"


_FEW = 3
"""Accounts of one data set that have a row each."""

_FOLDED = "Parties of one data set share a row; `--all` lists each."
_ADDED = (
    "`spent` is the epsilon of all runs together, `fits` that of one more run like the last but "
    "for its noise. The two add up to more than the grant: runs add up by their share of it, and "
    "in epsilon the first costs more than those after it. Open runs hold their whole share."
)
_ORDER = (
    "Under `rdp` the share of the grant is what counts: `spent` translates it at the one order "
    "that the first run fixed, which suits the whole grant. So it starts high (the first step of a "
    "run can show as 1.7), and lies above the plan's epsilon while little is spent."
)


@dataclass(frozen=True)
class _Bar:
    """The share of a grant that is spent, reserved by open runs, and left: drawn on a terminal, in
    words everywhere else."""

    spent: float
    reserved: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        if not console.is_terminal:
            yield Text(self._words())
            return
        spent = round(_CELLS * min(1.0, self.spent))
        reserved = round(_CELLS * min(1.0, self.spent + self.reserved)) - spent
        full, half, track = "#=-" if options.ascii_only else "█▒░"
        yield Text.assemble(
            (full * spent, "red" if self.spent > _NEARLY else "green"),
            (half * reserved, "yellow"),
            (track * (_CELLS - spent - reserved), "dim"),
            f" {self.spent + self.reserved:.0%}",
        )

    def _words(self) -> str:
        taken = _whole(self.spent + self.reserved)
        return f"{taken}, of it {_whole(self.reserved)} reserved" if self.reserved else taken

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement

        wide = _CELLS + 5 if console.is_terminal else len(self._words())
        return Measurement(wide, wide)


_CELLS = 20  # of a bar on a terminal
_NEARLY = 0.9  # of a grant is spent: its bar turns red
