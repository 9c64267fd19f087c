import gzip
import json
import stat

import pyarrow
import pyarrow.parquet
import pytest
import torch

from nacre.core.errors import DataError, NacreError
from nacre.core.files import load_tensors, save_tensors
from nacre.data import BPE, Bytes, Text
from nacre.data.split import Holdout, PublicFile
from nacre.data.text.token_cache import Aids, TokenCache

KEY = b"k" * 32
BYTES = {"tokenizer": Bytes(), "size": 3, "length": 8}
MODEL = {"task": "causal_lm", "text": "note"} | BYTES
ROWS = [
    {"note": "abc", "label": "up", "who": "p1", "score": 1.5},
    {"note": "de", "label": "down", "who": "p2", "score": -2},
    {"note": "f", "label": "up", "who": "p1", "score": 0},
]


def write(folder, rows, name="notes.jsonl"):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def read(option, folder, key=KEY, aids=None):
    return option.read(folder, 0, key, aids)


def words(rows):
    return [bytes(t for t in row if 0 <= t < 256).decode() for row in rows.features.tolist()]


def labelled(**more):
    return Text(path="notes.jsonl", text="note", label="label", classes=("down", "up"),
                **BYTES | more)  # fmt: skip


def test_documents_with_their_labels_and_people(tmp_path):
    cohorts = read(labelled(unit="who"), write(tmp_path, ROWS))
    assert words(cohorts.private) == ["abc", "de", "f"]
    assert cohorts.private.label.tolist() == [1, 0, 1]
    assert cohorts.private.group == ("p1", "p2", "p1")
    assert cohorts.private.features.dtype == torch.int64
    assert cohorts.private.features.shape == (3, 8)
    assert cohorts.tokenizer is None


def test_the_schema_reads_no_row(tmp_path):
    schema = labelled().schema(tmp_path)
    assert (schema.shape, schema.tokens, schema.outputs()) == ((8,), 257, 2)
    assert Text(path="absent.jsonl", **MODEL).schema(tmp_path).outputs() == 257


def test_numbers_are_predicted(tmp_path):
    option = Text(path="notes.jsonl", text="note", label="score", task="regression", **BYTES)
    assert read(option, write(tmp_path, ROWS)).private.label.tolist() == [1.5, -2, 0]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet"])
def test_every_form_of_table_says_the_same(tmp_path, kind, packed):
    path = tmp_path / f"notes.{kind}"
    if kind == "parquet":
        if packed:
            pytest.skip("Parquet packs its columns itself")
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    elif kind == "jsonl":
        write(tmp_path, ROWS)
    else:
        mark = "\t" if kind == "tsv" else ","
        lines = [mark.join(ROWS[0]), *(mark.join(str(v) for v in row.values()) for row in ROWS)]
        path.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig")
    name = path.name
    if packed:
        name += ".gz"
        (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
    found = read(Text(
        path=name, text="note", label="label", classes=("down", "up"), **BYTES
    ), tmp_path).private  # fmt: skip
    assert words(found) == ["abc", "de", "f"]
    assert found.label.tolist() == [1, 0, 1]


@pytest.mark.parametrize(("documents", "expected"), [
    ("line", ["one", "two", "three"]), ("paragraph", ["one\ntwo", "three"]),
])  # fmt: skip
def test_plain_text(tmp_path, documents, expected):
    (tmp_path / "a.txt").write_text("one\r\ntwo\r\n\r\n\r\nthree\r\n")
    option = Text(path="a.txt", task="causal_lm", documents=documents, **BYTES)
    assert words(read(option, tmp_path).private) == expected


def test_instructions(tmp_path):
    write(tmp_path, [{"q": "ask", "a": "no"}])
    option = Text(path="notes.jsonl", prompt="q", completion="a", task="causal_lm", **BYTES)
    found = read(option, tmp_path).private
    assert words(found) == ["askno"]
    assert (found.label[0] != -100).sum() == 3


def test_tagged_words(tmp_path):
    write(tmp_path, [{"words": ["ab", "c"], "tags": ["O", "NAME"]}])
    option = Text(path="notes.jsonl", text="words", label="tags", task="token_classification",
                  classes=("O", "NAME"), **BYTES)  # fmt: skip
    found = read(option, tmp_path).private
    assert found.label.tolist() == [[0, -100, 1, -100, -100, -100, -100, -100]]


def test_what_is_cut_is_told_on_this_machine_alone(tmp_path):
    cohorts = read(Text(path="notes.jsonl", **MODEL), write(tmp_path, [{"note": "a" * 20}]))
    assert "1 of 1 documents are longer than 8 tokens" in cohorts.notes[0]


def test_a_word_for_nothing_is_a_word_in_a_document(tmp_path):
    write(tmp_path, [{"note": "none"}, {"note": "NA"}])
    assert words(read(Text(path="notes.jsonl", **MODEL), tmp_path).private) == ["none", "NA"]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["{"], r"line 1 is not JSON"),
        (["[1]"], r"line 1 is no JSON object"),
        ([{"note": "a"}, {"other": "b"}], r"column 'note': there is no value in row 2; fill them"),
        ([{"note": " "}], r"there is no value in row 1"),
        ([{"note": 3}], r"there is no value in row 1"),
        (['{"note": "\\ud800"}'], r"half a character"),
        ([{"text": "a"}], r"has no column 'note' \(it has text\)"),
        ([""], r"holds no rows"),
        (["[" * 100_000], r"line 1 is not JSON"),
    ],
)
def test_rows_that_cannot_be_read_are_refused_with_their_place(tmp_path, rows, sentence):
    with pytest.raises(DataError, match=f"notes.jsonl.*{sentence}"):
        read(Text(path="notes.jsonl", **MODEL), write(tmp_path, rows))


def test_a_label_that_was_not_declared_names_its_rows(tmp_path):
    write(tmp_path, [*ROWS, {"note": "g", "label": "sideways"}])
    with pytest.raises(DataError, match=r"'sideways' is not one of the classes down, up in row 4"):
        read(labelled(), tmp_path)
    option = Text(path="notes.jsonl", text="note", label="score", task="regression", **BYTES)
    for score in ("high", "inf"):
        write(tmp_path, [{"note": "g", "score": score}])
        with pytest.raises(DataError, match="not a finite number in row 1"):
            read(option, tmp_path)


def test_words_and_classes_of_unequal_number_are_refused(tmp_path):
    write(tmp_path, [{"words": ["a", "b"], "tags": ["O"]}])
    option = Text(path="notes.jsonl", text="words", label="tags", task="token_classification",
                  classes=("O", "X"), **BYTES)  # fmt: skip
    with pytest.raises(DataError, match="differ in number in row 1"):
        read(option, tmp_path)


def test_rows_that_lack_something_may_be_dropped(tmp_path):
    cohorts = read(labelled(on_missing="drop"), write(tmp_path, [*ROWS, {"label": "up"}]))
    assert len(cohorts.private) == 3
    assert "dropped row 4, no value in 'note'" in cohorts.notes[0]


def test_nothing_to_learn_is_refused(tmp_path):
    write(tmp_path, [{"q": "ask me", "a": "x"}])
    option = Text(path="notes.jsonl", prompt="q", completion="a", task="causal_lm",
                  tokenizer=Bytes(), size=1, length=2)  # fmt: skip
    assert len(read(option, tmp_path).private) == 1  # the completion alone
    write(tmp_path, [{"note": "a"}])
    long = Text(path="notes.jsonl", task="causal_lm", text="note", cut="start", **BYTES)
    assert len(read(long, tmp_path).private) == 1


def test_private_text_never_moves_the_pieces(tmp_path):
    """What byte-pair encoding learns, it publishes."""
    (tmp_path / "public.txt").write_text("the cat sat on the mat\n" * 20)
    option = Text(path="private.txt", task="causal_lm", tokenizer=BPE(vocabulary=300), size=2,
                  length=8, public=PublicFile(path="public.txt"))  # fmt: skip
    found = []
    for secret in ("my secret my secret\n" * 50, "zzzz\n"):
        (tmp_path / "private.txt").write_text(secret)
        found.append(read(option, tmp_path).tokenizer["file"])
    assert found[0] == found[1]


def test_a_holdout_or_another_file_to_score_with(tmp_path):
    write(tmp_path, [{"note": f"n{i}", "label": "up" if i % 2 else "down"} for i in range(40)])
    held = read(labelled(holdout=Holdout(share=0.5)), tmp_path)
    assert len(held.private) + len(held.test) == 40
    assert not held.test_is_public
    write(tmp_path, ROWS, "test.jsonl")
    other = read(labelled(test=PublicFile(path="test.jsonl")), tmp_path)
    assert words(other.test) == ["abc", "de", "f"]
    assert other.test_is_public and not other.private_is_public


def test_the_same_text_has_the_same_content_however_it_is_read(tmp_path):
    """Else a longer row would pass for new data before the ledger."""
    write(tmp_path, ROWS)
    short, long = (read(labelled(length=n), tmp_path).private for n in (4, 8))
    assert short.content == long.content
    assert len(set(long.content)) == 3
    assert long.take([2]).content == (long.content[2],)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"path": "a.jsonl", "task": "causal_lm"}, "name the column"),
        ({"path": "a.jsonl", "task": "causal_lm", "prompt": "p"}, "need each other"),
        ({"path": "a.jsonl", "text": "t"}, "needs `label`"),
        ({"path": "a.jsonl", "text": "t", "label": "l"}, "two different classes"),
        ({"path": "a.jsonl", "text": "t", "task": "causal_lm", "label": "l"}, "leave it out"),
        ({"path": "a.jsonl", "text": "t", "task": "causal_lm", "classes": ("a", "b")}, "meaning"),
        ({"path": "a.txt", "text": "t", "task": "causal_lm"}, "plain text"),
        ({"path": "a.jsonl", "text": "t", "label": "t", "classes": ("a", "b")}, "two roles"),
        ({"path": "a.txt", "task": "causal_lm", "size": 0}, "at least 1"),
        ({"path": "a.txt", "task": "causal_lm", "tokenizer": BPE()}, "learns its pieces from"),
        ({"path": "a.txt", "task": "causal_lm", "holdout": Holdout(),
          "test": PublicFile(path="b.txt")}, "exclude each other"),
        ({"path": "a.jsonl", "text": "t", "label": "l", "prompt": "p", "completion": "c",
          "classes": ("a", "b")}, "replace `text`"),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        Text(**{"size": 3, "tokenizer": Bytes()} | fields)


def test_the_second_reading_takes_the_tokens_that_were_kept(tmp_path):
    write(tmp_path, ROWS)
    told = []
    kept = TokenCache()
    aids = Aids(kept, lambda what, done, total: told.append(what))
    first = read(labelled(), tmp_path, aids=aids)
    local = tmp_path / "local"
    local.mkdir(mode=0o700)
    kept.into(local)
    assert told == ["tokens of notes.jsonl"]
    second = read(labelled(), tmp_path, aids=Aids(TokenCache(local), aids.advance))
    assert told == ["tokens of notes.jsonl"]  # nothing was encoded again
    assert torch.equal(first.private.features, second.private.features)
    files = list(local.iterdir())
    assert len(files) == 1
    assert not stat.S_IMODE(local.stat().st_mode) & 0o077


def test_names_of_kept_tokens_tell_nothing_without_the_key(tmp_path):
    write(tmp_path, ROWS)
    for number, key in enumerate((b"a" * 32, b"b" * 32)):
        kept = TokenCache()
        read(labelled(), tmp_path, key, Aids(kept))
        folder = tmp_path / str(number)
        folder.mkdir()
        kept.into(folder)
    names = [{path.name for path in (tmp_path / str(i)).iterdir()} for i in (0, 1)]
    assert not names[0] & names[1]


@pytest.mark.parametrize("change", ["text", "length", "cut"])
def test_kept_tokens_of_another_reading_are_not_taken(tmp_path, change):
    write(tmp_path, ROWS)
    kept = TokenCache(tmp_path)
    read(labelled(), tmp_path, aids=Aids(kept))
    more = {"length": 4} if change == "length" else {"cut": "start"} if change == "cut" else {}
    if change == "text":
        write(tmp_path, [{**ROWS[0], "note": "xyz"}, *ROWS[1:]])
    again, fresh = (read(labelled(**more), tmp_path, aids=a) for a in (Aids(kept), None))
    assert torch.equal(again.private.features, fresh.private.features)


def test_a_damaged_file_of_tokens_is_made_again(tmp_path):
    write(tmp_path, ROWS)
    first = read(labelled(), tmp_path, aids=Aids(TokenCache(tmp_path)))
    (file,) = tmp_path.glob("tokens-*")
    file.write_bytes(b"damaged")
    again = read(labelled(), tmp_path, aids=Aids(TokenCache(tmp_path)))
    assert torch.equal(first.private.features, again.private.features)
    assert len(file.read_bytes()) > 100


@pytest.mark.parametrize("change", [
    lambda held: {"label": held["label"]},
    lambda held: held | {"features": held["features"].repeat(2, 1)},
    lambda held: held | {"features": torch.full_like(held["features"], 999)},
])  # fmt: skip
def test_tokens_that_were_changed_are_made_again(tmp_path, change):
    write(tmp_path, ROWS)
    first = read(labelled(), tmp_path, aids=Aids(TokenCache(tmp_path)))
    (file,) = tmp_path.glob("tokens-*")
    tensors, facts = load_tensors(file)
    save_tensors(file, change(tensors), facts)
    again = read(labelled(), tmp_path, aids=Aids(TokenCache(tmp_path)))
    assert torch.equal(first.private.features, again.private.features)


def test_a_full_disk_costs_time_and_nothing_else(tmp_path, monkeypatch):
    write(tmp_path, ROWS)

    def full(*_):
        raise NacreError("no space left on device")

    monkeypatch.setattr("nacre.data.text.token_cache.save_tensors", full)
    kept = TokenCache()
    assert len(read(labelled(), tmp_path, aids=Aids(kept)).private) == 3
    kept.into(tmp_path)
    assert kept.get("anything") is None
