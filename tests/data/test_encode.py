import pytest

from nacre.core.errors import Refusal
from nacre.data.text.encode import Encoder
from nacre.data.text.text import tokens
from nacre.data.text.tokens import BYTES, OfModel
from tests.data.tokenizer_folders import encoder

END = BYTES.end


def ids(text):
    return list(text.encode())


def test_a_document_counts_word_for_word_and_its_end_too():
    found = Encoder(BYTES, 6).documents(["abc", "é"])
    assert found.features.tolist() == [[*ids("abc"), END, -1, -1], [*ids("é"), END, -1, -1, -1]]
    assert found.label.tolist() == [
        [*ids("abc"), END, -100, -100],
        [*ids("é"), END, -100, -100, -100],
    ]
    assert found.cut == 0


@pytest.mark.parametrize(("cut", "kept"), [("end", ids("abcd")), ("start", [*ids("def"), END])])
def test_a_long_document_loses_one_side(cut, kept):
    """Cut at its end, a document does not learn that it ended there."""
    found = Encoder(BYTES, 4, cut).documents(["abcdef"])
    assert found.features.tolist() == [kept]
    assert found.cut == 1


def test_no_row_holds_two_documents():
    found = Encoder(BYTES, 8).documents(["a", "b", "c"])
    for row, text in zip(found.features.tolist(), "abc", strict=True):
        assert [token for token in row if 0 <= token < END] == ids(text)


def test_only_the_completion_counts():
    found = Encoder(BYTES, 8).instructions(["ask"], ["no"])
    assert found.features.tolist() == [[*ids("askno"), END, -1, -1]]
    assert found.label.tolist() == [[-100] * 3 + [*ids("no"), END, -100, -100]]


@pytest.mark.parametrize(("cut", "kept"), [("end", "qu"), ("start", "on")])
def test_a_prompt_gives_way_to_its_completion(cut, kept):
    found = Encoder(BYTES, 6, cut).instructions(["question"], ["yes"])
    assert found.features.tolist() == [[*ids(kept), *ids("yes"), END]]
    assert found.cut == 1


def test_a_completion_longer_than_the_row_fills_it():
    found = Encoder(BYTES, 4).instructions(["q"], ["abcdef"])
    assert found.features.tolist() == [ids("abcd")]
    assert found.label.tolist() == found.features.tolist()
    assert found.cut == 1


def test_texts_stand_in_the_models_own_template(tmp_path):
    tokenizer = tokens.of_model(OfModel(name="m"), encoder(tmp_path / "m").parent)
    found = Encoder(tokenizer, 5).texts(["good", "very very good film"])
    assert found.features.tolist() == [[2, 4, 3, -1, -1], [2, 7, 7, 4, 3]]
    assert (found.label == -100).all()
    assert found.cut == 1
    assert Encoder(tokenizer, 5, "start").texts(["very very good film"]).features.tolist() == [
        [2, 7, 4, 6, 3]
    ]


def test_a_word_counts_at_its_first_token(tmp_path):
    tokenizer = tokens.of_model(OfModel(name="m"), encoder(tmp_path / "m").parent)
    found = Encoder(tokenizer, 7).tagged([["good", "films"], ["dogs"]], [[0, 1], [2]])
    assert found.features.tolist() == [[2, 4, 6, 8, 3, -1, -1], [2, 9, 8, 3, -1, -1, -1]]
    assert found.label.tolist() == [
        [-100, 0, 1, -100, -100, -100, -100],
        [-100, 2, -100, -100, -100, -100, -100],
    ]


def test_a_row_without_room_is_refused(tmp_path):
    tokenizer = tokens.of_model(OfModel(name="m"), encoder(tmp_path / "m").parent)
    with pytest.raises(Refusal, match="length=2 leaves no room"):
        Encoder(tokenizer, 2)


def test_progress_is_told():
    told = []
    Encoder(BYTES, 4, advance=lambda done, total: told.append((done, total))).documents(
        ["a"] * 3000
    )
    assert told == [(2048, 3000), (3000, 3000)]
