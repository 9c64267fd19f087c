import json

import pytest

from nacre.core.errors import Refusal
from nacre.data.text.text import tokens
from nacre.data.text.tokens import BPE, BYTES, OfModel
from tests.data.tokenizer_folders import decoder, encoder
from tests.models.transformer_folders import folder_of

TEXTS = ["the cat sat on the mat", "the dog sat", "naïve café"] * 5


def test_pieces_spell_the_text_and_end_it():
    learnt = tokens.learnt(BPE(vocabulary=300), TEXTS)
    (ids,) = learnt.encode(["the cat"])
    assert len(ids) < len("the cat")
    assert max(ids) < learnt.vocabulary == 300
    assert learnt.around() == ([], [learnt.end])


def test_the_same_public_text_gives_the_same_pieces():
    assert tokens.learnt(BPE(vocabulary=300), TEXTS).file == (
        tokens.learnt(BPE(vocabulary=300), list(TEXTS)).file
    )


@pytest.mark.parametrize("make", [
    lambda folder: tokens.learnt(BPE(vocabulary=300), TEXTS),
    lambda folder: tokens.of_model(OfModel(name="m"), encoder(folder / "m").parent),
    lambda folder: tokens.of_model(OfModel(name="m"), decoder(folder / "m").parent),
    lambda folder: BYTES,
])  # fmt: skip
def test_what_a_document_says_is_never_a_special_token(make, tmp_path):
    """Else whoever writes a row could end it early, or make it look like two."""
    made = make(tmp_path)
    before, after = made.around()
    special = {*before, *after, made.end}
    for text in ("[SEP] a", "<|endoftext|>", "<|end|>b", "[CLS]", "<s>"):
        (ids,) = made.encode([text])
        assert not special & set(ids), text


def test_the_template_of_the_model_is_found(tmp_path):
    made = tokens.of_model(OfModel(name="m"), encoder(tmp_path / "m").parent)
    assert made.around() == ([2], [3])
    assert made.encode(["good films"]) == [[4, 6, 8]]
    begins = tokens.of_model(OfModel(name="d"), decoder(tmp_path / "d", begins=True).parent)
    assert begins.around() == ([begins.vocabulary - 1], [])
    assert begins.end == begins.vocabulary - 2


def test_a_folder_without_a_tokenizer_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refusal, match=r"no tokenizer can be had from .*empty"):
        tokens.of_model(OfModel(name="empty"), tmp_path)


@pytest.mark.parametrize("family", ["Bert", "GPT2", "Roberta"])
def test_a_model_without_its_tokenizer_is_refused(tmp_path, family):
    """transformers makes a tokenizer that knows special tokens alone, and every word is unknown."""
    folder_of(family, tmp_path)
    with pytest.raises(Refusal, match=r"it holds no vocabulary.*put tokenizer\.json"):
        tokens.of_model(OfModel(name=family.lower()), tmp_path)


def test_a_run_that_kept_none_says_so(tmp_path):
    (tmp_path / "model.json").write_text('{"tokenizer": null}')
    with pytest.raises(Refusal, match="kept no tokenizer"):
        tokens.of_model(OfModel(name="."), tmp_path)


def test_a_vocabulary_smaller_than_the_bytes_is_refused():
    with pytest.raises(ValueError, match="above 257"):
        BPE(vocabulary=100)
    with pytest.raises(ValueError, match="must name a folder"):
        OfModel(name="")


def test_what_a_run_keeps_reads_the_same(tmp_path):

    learnt = tokens.learnt(BPE(vocabulary=300), TEXTS)
    (tmp_path / "model.json").write_text(json.dumps({"tokenizer": tokens.described(learnt)}))
    again = tokens.of_model(OfModel(name="."), tmp_path)
    assert again.encode(TEXTS) == learnt.encode(TEXTS)
    assert again.around() == learnt.around()
    assert tokens.described(BYTES) is None


def test_a_tokenizer_that_would_roll_dice_does_not(tmp_path):
    file = decoder(tmp_path / "m") / "tokenizer.json"
    told = json.loads(file.read_text())
    told["model"] |= {"dropout": 0.5, "merges": [["a", "b"]]}
    told["model"]["vocab"]["ab"] = len(told["model"]["vocab"])
    file.write_text(json.dumps(told))
    tokenizer = tokens.of_model(OfModel(name="m"), tmp_path)
    assert len({tuple(ids) for ids in tokenizer.encode(["ababab"] * 50)}) == 1
    assert json.loads(tokenizer.file)["model"]["dropout"] is None
