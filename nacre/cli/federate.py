"""`nacre federate`."""

from __future__ import annotations

from pathlib import Path

import click

from nacre.cli.output import code_of, code_options, common_options, debug_option, show
from nacre.cli.queries import agreed_queries, asks_queries


@click.group(short_help="Keys, roster and digests of a federation across organisations.")
@debug_option
def command() -> None:
    """Make the keys of one side of a federation, and what all sides have to agree on.

    docs/deploy.md goes through it for three organisations."""


@command.command("keys", short_help="Make the keys of one side.")
@click.argument("name")
@click.option("--into", type=click.Path(path_type=Path), required=True, help="A folder of its own.")
@click.option(
    "--host", "hosts", multiple=True, metavar="HOST",
    help="A name or address of the SuperLink's machine; for the server, once or more.",
)  # fmt: skip
@common_options
def make_keys(name: str, into: Path, hosts: tuple[str, ...], as_json: bool) -> None:
    """Make the keys of the side NAME: `server`, or the name of a party as the recipe has it.

    For the server: an authority for TLS (ca.pem, ca.key), the SuperLink's certificate (server.pem,
    server.key), its secret (superexec.secret) and a signing key. For a party: the key of its node
    and a signing key. Private files are readable by their owner alone. NAME.card.json has the
    public keys: hand it to the side that makes the roster."""
    from nacre.core.errors import Refusal
    from nacre.federated_learning.across.keys import keys_of_party, keys_of_server
    from nacre.federated_learning.roster import SERVER

    if (name == SERVER) != bool(hosts):
        raise Refusal(
            "`nacre federate keys server` needs `--host`, a name or address of the SuperLink's "
            "machine; the keys of a party need none"
        )
    card = keys_of_server(into, hosts) if name == SERVER else keys_of_party(into, name)
    path = into / f"{card.name}.card.json"
    show(
        {"name": card.name, "card": str(path), "signing": card.signing.hex()},
        f"made the keys of {card.name} in {into}; hand {path} to the side that makes the roster",
        as_json,
    )


@command.command("roster", short_help="Make the roster from all cards, or show one's digest.")
@click.argument("cards", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where the roster is put.")
@common_options
def make_roster(cards: tuple[Path, ...], output: Path | None, as_json: bool) -> None:
    """Make the roster from CARDS: the server's and each party's. Without `-o`, CARDS is one roster.

    Its digest is the same on all sides where they pin the same keys: compare it over a way that
    nobody in between can change, as by telephone."""
    from nacre.core.errors import Refusal
    from nacre.core.files import write_json
    from nacre.federated_learning.across.keys import Card, roster_of
    from nacre.runs.federation.over_flower import read_roster

    if output is None:
        if len(cards) != 1:
            raise Refusal("name the file of the new roster with `-o roster.json`")
        found = read_roster(cards[0])
    else:
        found = roster_of([Card.load(path) for path in cards])
        write_json(output, found.to_json())
    digest, names = found.digest(), ", ".join(found.parties)
    show(
        {"digest": digest, "parties": list(found.parties)},
        f"parties: {names}\ndigest: {digest}",
        as_json,
    )


@command.command("digest", short_help="The digest of a recipe that all sides have to share.")
@click.argument("recipe", type=click.Path(path_type=Path))
@code_options
@common_options
def show_digest(recipe: Path, packages: tuple[str, ...], trust_code: bool, as_json: bool) -> None:
    """Print the digest of what all sides have to agree on in RECIPE: everything but the ledger, the
    execution, and the paths of data; of a file of queries, all of it. A party's policy names it."""
    from nacre.recipe.load import load_recipe
    from nacre.runs.federation.agreed import agreed_digest

    if asks_queries(recipe):
        found = agreed_queries(recipe)[0].digest
    else:
        found = agreed_digest(load_recipe(recipe, code=code_of(packages, trust_code)))
    show({"digest": found}, found, as_json)


@command.command("admit", short_help="Register the nodes of parties at the SuperLink.")
@click.argument("cards", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--superlink", required=True, metavar="HOST:PORT", help="Where it listens.")
@click.option("--ca", type=click.Path(path_type=Path), required=True, help="The file ca.pem.")
@common_options
def admit_nodes(cards: tuple[Path, ...], superlink: str, ca: Path, as_json: bool) -> None:
    """Register the nodes of CARDS, so that the SuperLink lets them in. It lets nobody else in, and
    who is not in the roster gets no rows' change and no word in a run all the same."""
    from nacre.federated_learning.across.keys import Card
    from nacre.federated_learning.flower import require_flower
    from nacre.federated_learning.roster import SERVER

    require_flower()
    from nacre.federated_learning.flower.superlink import SuperLink, register

    found = [Card.load(path) for path in cards]
    nodes = {card.name: card.node for card in found if card.name != SERVER}
    new = register(SuperLink(address=superlink, ca=ca), nodes)
    said = f"admitted {', '.join(new)}" if new else "all of them were admitted before"
    show({"admitted": new}, said, as_json)


@command.command("bundle", short_help="What a stock SuperNode needs in place of `nacre party`.")
@click.argument("name")
@click.option(
    "--keys", type=click.Path(path_type=Path), required=True,
    help="The folder that `nacre federate keys` made for this party.",
)  # fmt: skip
@click.option("--into", type=click.Path(path_type=Path), required=True, help="A folder of its own.")
@common_options
def make_bundle(name: str, keys: Path, into: Path, as_json: bool) -> None:
    """Make what the party NAME needs to run Flower's own `flower-supernode` in place of `nacre
    party`: the inert bundle, with its digest; a file for `--trusted-entities` that pins this bundle
    and no other; the node's key as SSH writes it; and NAME.bundle.json, for the server.

    The bundle holds no program: it names the nacre that is installed at the party. It is the same
    on every machine. The key that signs it is forgotten at once, so it never signs another one."""
    from nacre.core.files import write_bytes, write_json
    from nacre.federated_learning.across.keys import NODE_KEY, fresh, node_key, ssh_key
    from nacre.federated_learning.flower.bundle import Pin, bundle, bundle_digest, file_name

    key = ssh_key(node_key(keys / NODE_KEY))
    fresh(into)
    data = bundle()
    pin, signature = Pin.made(data), into / f"{name}.bundle.json"
    write_bytes(into / file_name(data), data)
    write_bytes(into / "trusted.yaml", pin.trusted())
    write_bytes(into / "node.ssh", key, mode=0o600)
    write_json(signature, pin.to_json())
    digest = bundle_digest(data)
    show(
        {"digest": digest, "bundle": str(into / file_name(data)), "signature": str(signature)},
        f"bundle: {digest}\nhand {signature} to the server, and start flower-supernode with "
        f"`--trusted-entities {into}/trusted.yaml` (docs/deploy.md)",
        as_json,
    )
