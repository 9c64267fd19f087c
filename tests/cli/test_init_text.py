"""`nacre init text FILE`: a recipe from a header alone, or from nothing of a file without one."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import BashComplete

from nacre.cli.main import cli
from nacre.recipe.document import parse
from nacre.recipe.drafting.texts import TASKS, TextRoles, drafted_text
from tests.cli.conftest import Nacre, document
from tests.data.tokenizer_folders import encoder
from tests.models.transformer_folders import folder_of


def text_draft(file: Path, **roles: Any) -> str:
    return drafted_text(file, file.name, TextRoles(**roles), file.parent).text


def drafted_data(text: str) -> dict[str, Any]:
    return parse(text.encode(), "recipe.yaml").values["data"]


@pytest.mark.parametrize(
    ("header", "roles", "found"),
    [
        ("id,text,label", {}, {"text": "text", "label": "label"}),
        ("review_id,Review,stars", {}, {"text": "Review", "label": "stars"}),
        ("title,body,category_id", {}, {"text": "body", "label": "FILL"}),
        ("q,z", {"text": "q"}, {"text": "q", "label": "FILL"}),
        ("text,label", {"text": "label", "target": "text"}, {"text": "label", "label": "text"}),
        ("text,label", {"task": "causal_lm"}, {"text": "text", "task": "causal_lm"}),
        ("text,score", {"task": "regression"},
         {"text": "text", "label": "score", "task": "regression"}),
        ("question,answer", {},
         {"prompt": "question", "completion": "answer", "task": "causal_lm"}),
        ("question,answer", {"task": "classification"}, {"text": "FILL", "label": "FILL"}),
        ("author,text,label", {"unit": "author"},
         {"text": "text", "label": "label", "unit": "author"}),
    ],
)  # fmt: skip
def test_the_roles_are_guessed_from_the_header(
    tmp_path: Path, header: str, roles: dict[str, str], found: dict[str, str]
) -> None:
    (tmp_path / "t.csv").write_text(header)
    text = text_draft(tmp_path / "t.csv", **roles)
    data = drafted_data(text)
    keys = ("text", "prompt", "completion", "label", "task", "unit")
    assert {key: data[key] for key in keys if key in data} == found
    named = {value for value in roles.values()}
    for key in ("text", "prompt", "completion", "label"):
        if found.get(key, "FILL") != "FILL":
            guess = "  # guess from the name" if found[key] not in named else "  # the column"
            assert f"  {key}: {found[key]}{guess}" in text


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.txt"])
def test_every_file_of_one_header_gives_one_recipe(tmp_path: Path, name: str) -> None:
    """Of JSON lines not even the keys: a key that one row alone has would tell that it is there."""
    header = {"t.csv": b"text,label", "t.tsv": b"text\tlabel"}.get(name, b"")
    file = tmp_path / name
    drafts: set[str] = set()
    for rest in (b"", b'{"secret": 1}\n', b"\n\xff\xfe\x00", b"\n" * 999, b'\n"never closed'):
        if header and not rest.startswith(b"\n"):
            rest = b"\n" + rest
        file.write_bytes(header + rest)
        drafts.add(text_draft(file))
    assert len(drafts) == 1 and "secret" not in drafts.pop()


def test_json_lines_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket has a name, and nobody can open it."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind("t.jsonl")
        assert drafted_data(text_draft(Path("t.jsonl")))["text"] == "FILL"
        with pytest.raises(OSError):
            Path("t.jsonl").read_bytes()


@pytest.mark.parametrize("task", TASKS)
def test_a_draft_plans_after_the_lines_that_it_names(
    nacre: Nacre, tmp_path: Path, task: str
) -> None:
    """Two classes are all that is left where size and columns are said and a base lies there."""
    encoder(
        folder_of("GPT2" if task == "causal_lm" else "Bert", tmp_path).rename(tmp_path / "base")
    )
    (tmp_path / "notes.jsonl").touch()
    recipe = tmp_path / "recipe.yaml"
    roles = ["--text", "note", "--task", task, "--size", 800]
    if task != "causal_lm":
        roles += ["--target", "mood"]
    said = document(nacre("init", "text", tmp_path / "notes.jsonl", "-o", recipe, *roles, "--json"))
    assert said["recipe"] == str(recipe) and said["guessed"] == []
    assert said["columns"] == 1 + (task != "causal_lm")
    assert len(said["to_fill"]) == (task == "classification")
    text = recipe.read_text()
    assert "  name: base  #" in text and text.count("pooling: mean") == (task != "causal_lm")
    if said["to_fill"]:
        refused = nacre("plan", recipe)
        assert refused.stderr.startswith(f"nacre: {recipe}:{said['to_fill'][0]} `data.classes")
        text = text.replace("[FILL, FILL]", "[low, high]")
    recipe.write_text(text.replace("length: 128", "length: 8"))
    planned = nacre("plan", recipe)
    assert planned.exit_code == 0, planned.stderr


def test_people_parties_and_an_unknown_size_are_lines_to_fill(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("author,text,label,site\n")
    text = text_draft(tmp_path / "t.csv", unit="author", party="site")
    assert "  party: site" in text and "sizes: {FILL: FILL}" in text and "steps: 200" not in text
    assert "  unit: group\n  rows_per_unit: FILL" in text and "  size: FILL  # units" in text
    text = text_draft(tmp_path / "t.csv", size=80_000)
    assert "# unit: author  # `--unit`" in text and "delta: 1.0e-6" in text and "batch: 512" in text


def test_the_base_is_a_folder_of_a_model_or_a_name_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "t.txt").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").touch()
    assert "  name: mine  #" in text_draft(tmp_path / "t.txt", base=str(tmp_path / "mine"))
    assert '  name: "a/b"  #' in text_draft(tmp_path / "t.txt", base="a/b")
    assert "  name: FILL  #" in text_draft(tmp_path / "t.txt")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("absent.jsonl",), "absent.jsonl cannot be read (no such file or directory)"),
        (("absent.csv",), "absent.csv cannot be read"),
        (("rows.txt", "--text", "note"), "is plain text, which has no columns; leave out `--text`"),
        (("rows.txt", "--task", "regression"), "is plain text, which has no labels"),
        (("t.csv", "--text", "texts"), "has no column 'texts' for `--text`; did you mean 'text'?"),
        (("t.csv", "--text", "text", "--unit", "text"), "is named by --text and by --unit"),
        (("t.csv", "--target", "text", "--task", "causal_lm"), "`--target` has no meaning"),
        (("t.csv", "--base", "empty"), "`--base empty` has no config.json"),
        (("t.csv", "--base", "./nowhere"), "`--base ./nowhere` is no folder"),
        (("t.csv", "--base", "t.csv"), "`--base t.csv` is no folder"),
        (("semicolons.csv",), "separates its columns by ';', and texts are read from .csv"),
        (("western.csv",), "is not UTF-8, in which texts are read"),
        (("t.csv", "--drop", "text"), "`--drop` is for tables, not for text"),
        (("long.csv", "--text", "x" * 300), "has a column that no recipe can name"),
    ],
)
def test_what_no_draft_can_be_made_of_is_one_sentence(
    nacre: Nacre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("text,label\n")
    Path("semicolons.csv").write_text("text;label\n")
    Path("western.csv").write_bytes("größe,text\n".encode("latin-1"))
    Path("long.csv").write_text("x" * 300 + ",label\n")
    Path("rows.txt").touch()
    Path("empty").mkdir()
    refused = nacre("init", "text", *words)
    assert refused.exit_code == 2 and says in refused.stderr, refused.stderr
    assert refused.stderr.count("\n") == 1 and not Path("recipe.yaml").exists()


def test_options_of_texts_are_for_texts(nacre: Nacre, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n")
    for words, says in (
        (("table", tmp_path / "t.csv", "--base", "b"), "`--base` is for texts, not for table"),
        (("text", "--size", "9"), "`--size` is about texts: `nacre init text FILE --size`"),
        (("image", "--text", "a"), "`--text` is about texts: `nacre init text FILE --text`"),
    ):
        refused = nacre("init", *words, "-o", tmp_path / "r.yaml")
        assert refused.exit_code == 2 and says in refused.stderr, refused.stderr


def test_a_shell_completes_kinds_tasks_and_options() -> None:
    def completed(words: list[str], begun: str) -> set[str]:
        shell = BashComplete(cli, {}, "nacre", "_NACRE_COMPLETE")
        return {item.value for item in shell.get_completions(words, begun)}

    assert completed(["init"], "te") == {"text"}
    assert completed(["init", "text", "t.csv", "--task"], "") == set(TASKS)
    assert {"--text", "--task", "--target"} <= completed(["init", "text", "t.csv"], "--t")
