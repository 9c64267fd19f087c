"""`nacre export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from nacre.cli.output import code_of, code_options, common_options, show


@click.command(short_help="Write a run's model for transformers, PEFT or ONNX.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--form", "--to", "form", type=click.Choice(["merged", "adapter", "onnx"]), default="merged",
    show_default=True, help="The whole model, what LoRA learnt alone, or one ONNX graph.",
)  # fmt: skip
@code_options
@common_options
def command(
    run: Path,
    folder: Path,
    form: Literal["merged", "adapter", "onnx"],
    packages: tuple[str, ...],
    trust_code: bool,
    as_json: bool,
) -> None:
    """Write the finished model of RUN into FOLDER, with its tokenizer and a card (README.md) that
    says what evidence says of it. A pretrained model loads there by `from_pretrained`, an adapter
    by `peft.PeftModel.from_pretrained(base, FOLDER)`; a graph reads raw rows, its signature is in
    its metadata. It costs no epsilon."""
    from nacre.core.files import write_bytes
    from nacre.report.card import model_card
    from nacre.report.evidence import gather
    from nacre.runs.handover import hand_over
    from nacre.runs.run import open_run

    code = code_of(packages, trust_code)
    open_run(run, code=code)  # refuses an open one before its evidence is asked for
    card = model_card(gather(run), form)
    files = hand_over(run, folder, form, code=code)
    write_bytes(folder / "README.md", card.encode())
    files = sorted([*files, "README.md"])
    document = {"run": str(run), "folder": str(folder), "form": form, "files": files}
    show(document, f"wrote {', '.join(files)} into {folder}: {_what(form, folder)}", as_json)


def _what(form: str, folder: Path) -> str:
    """What was written, for people."""
    if form == "onnx":
        return "one graph from raw rows to answers, and a card that says what it reads"
    if form == "adapter":
        return "what LoRA learnt, to be put onto its base, and a card"
    return f"the model and a card; `nacre predict {folder} ROWS` reads it"
