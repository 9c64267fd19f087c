"""Folders with tiny tokenizers, as they lie beside pretrained models."""

import json

import tokenizers
from tokenizers import models, pre_tokenizers, processors

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "very", "##s", "dog", "[", "]",
         "sep", "a", "b", "c"]  # fmt: skip


def encoder(into):
    """A WordPiece tokenizer that puts [CLS] and [SEP] around a document, as BERT's does."""
    backend = tokenizers.BertWordPieceTokenizer({word: i for i, word in enumerate(WORDS)})
    into.mkdir(parents=True, exist_ok=True)
    backend.save(str(into / "tokenizer.json"))
    _settings(into, "BertTokenizerFast", cls_token="[CLS]", sep_token="[SEP]")
    return into


def decoder(into, *, begins=False):
    """A tokenizer of bytes that ends documents, as GPT-2's does; one that `begins` them too."""
    words = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: i for i, word in enumerate([*words, "<|endoftext|>", "<s>"])}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(["<|endoftext|>", "<s>"])
    if begins:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
        )
    into.mkdir(parents=True, exist_ok=True)
    backend.save(str(into / "tokenizer.json"))
    _settings(into, "PreTrainedTokenizerFast", eos_token="<|endoftext|>")
    return into


def _settings(into, kind, **special):
    settings = {"tokenizer_class": kind} | special
    (into / "tokenizer_config.json").write_text(json.dumps(settings))
