"""Text to tokens: bytes, pieces learnt from public text, or the tokenizer of a pretrained model."""

# Parts of tokenizers and transformers are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from nacre.core import hub
from nacre.core.errors import BadArgument, Refusal
from nacre.core.strict import parsed

_END = 256  # the token that ends a document of bytes
_END_PIECE = "<|end|>"


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """Each byte of UTF-8 is a token, and one more ends a document: 257 in all. Learns nothing."""

    kind: Literal["bytes"] = "bytes"

    def sentence(self) -> str:
        """What tokens are."""
        return "the bytes of UTF-8, so nothing is learnt from the text"


@dataclass(frozen=True, kw_only=True)
class BPE:
    """Pieces of text that are frequent in the *public* rows, by byte-pair encoding (Sennrich 2016).
    Learning them from private rows would publish what these rows repeat."""

    kind: Literal["bpe"] = "bpe"
    vocabulary: int = 2048
    """Tokens at most: 256 bytes, the end of a document, and the pieces."""

    def sentence(self) -> str:
        """What tokens are."""
        return "pieces learnt from the public rows alone"

    def __post_init__(self) -> None:
        if self.vocabulary <= _END + 1:
            raise BadArgument(f"vocabulary={self.vocabulary} must be above {_END + 1}: the bytes")


@dataclass(frozen=True, kw_only=True)
class OfModel:
    """The tokenizer that a pretrained model was trained with."""

    kind: Literal["pretrained"] = "pretrained"
    name: str
    """A folder with tokenizer.json or vocab.txt, or that of a former run, relative to the recipe;
    where there is no such folder, the name of a model on the Hugging Face hub."""

    def sentence(self) -> str:
        """What tokens are."""
        return f"those of {self.name}"

    def __post_init__(self) -> None:
        if not self.name:
            raise BadArgument("name='' must name a folder or a model of the hub")


TokenizerOption = Bytes | BPE | OfModel


class Tokenizer(Protocol):
    """Documents as lists of token ids. What a document says is never read as a special token."""

    @property
    def vocabulary(self) -> int:
        """Every token is below it."""
        ...

    @property
    def end(self) -> int | None:
        """The token that ends a document; None where the tokenizer has none."""
        ...

    @property
    def file(self) -> str:
        """All of it as the text of a tokenizer.json; "" for bytes, which need none."""
        ...

    def around(self) -> tuple[list[int], list[int]]:
        """The special tokens that the model wants before and after a document."""
        ...

    def encode(self, documents: Sequence[str]) -> list[list[int]]:
        """The tokens of each document, without any special one."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """What tokens say; special ones say nothing."""
        ...


class ByteTokenizer:
    """What `Bytes` says.

    >>> ByteTokenizer().encode(["hé"])
    [[104, 195, 169]]
    """

    vocabulary = _END + 1
    end = _END
    file = ""

    def around(self) -> tuple[list[int], list[int]]:
        """Nothing before, the end after."""
        return [], [_END]

    def encode(self, documents: Sequence[str]) -> list[list[int]]:
        """The bytes of each document."""
        return [list(text.encode()) for text in documents]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of these bytes; what is no UTF-8 becomes U+FFFD."""
        return bytes(token for token in tokens if token < _END).decode(errors="replace")


BYTES = ByteTokenizer()
"""It has no state."""


class PieceTokenizer:
    """A tokenizer of the library `tokenizers`: what `BPE` learnt, or what came with a model."""

    def __init__(
        self,
        backend: Any,  # a tokenizers.Tokenizer
        end: int | None,
        around: tuple[list[int], list[int]],
        vocabulary: int | None = None,  # None counts the tokens
    ) -> None:
        # A document that holds "[SEP]" or "<|endoftext|>" says these letters and no more.
        backend.encode_special_tokens = True
        backend.no_padding()
        backend.no_truncation()
        # A tokenizer.json may ask for BPE-dropout (Provilkov 2020), which makes other pieces at
        # each reading: a run would never meet its own rows again, nor a unit its own gradient.
        if getattr(backend.model, "dropout", None):
            backend.model.dropout = None
        self._backend = backend
        self.end = end
        self._around = around
        ids: dict[str, int] = backend.get_vocab(with_added_tokens=True)
        self.vocabulary = vocabulary or max(ids.values()) + 1

    @property
    def file(self) -> str:
        """See `Tokenizer.file`."""
        return str(self._backend.to_str())

    def names(self) -> tuple[str, ...]:
        """How the tokenizer writes each token, by its number; "" for special ones and for numbers
        without a token."""
        ids: dict[str, int] = self._backend.get_vocab(with_added_tokens=True)
        added: dict[int, Any] = self._backend.get_added_tokens_decoder()
        found = [""] * self.vocabulary
        for name, number in ids.items():
            if number < self.vocabulary and not (number in added and added[number].special):
                found[number] = name
        return tuple(found)

    def around(self) -> tuple[list[int], list[int]]:
        """See `Tokenizer.around`."""
        return self._around

    def encode(self, documents: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode`."""
        encoded = self._backend.encode_batch_fast(list(documents), add_special_tokens=False)
        return [list(one.ids) for one in encoded]

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        return str(self._backend.decode(list(tokens), skip_special_tokens=True))


def learnt(option: BPE, public: Iterable[str]) -> PieceTokenizer:
    """The pieces of public documents. The same documents give the same pieces."""
    library = _tokenizers()
    backend = library.Tokenizer(library.models.BPE())
    backend.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=option.vocabulary,
        special_tokens=[_END_PIECE],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(public, trainer)
    end = int(backend.token_to_id(_END_PIECE))
    # Few documents have fewer pieces than were asked for; the model's width was declared.
    return PieceTokenizer(backend, end, ([], [end]), option.vocabulary)


def of_model(option: OfModel, folder: Path) -> PieceTokenizer:
    """The tokenizer of a folder, of a former run, or of the hub.

    Raises `Refusal` where there is none, or none that `tokenizers` can run.
    """
    place = folder / option.name
    if (place / "model.json").is_file():
        return _of_run(place)
    source, offline = hub.hub_source(option.name, folder)
    try:
        import transformers

        loaded: Any = transformers.AutoTokenizer.from_pretrained(
            source, trust_remote_code=False, local_files_only=offline
        )
        backend = loaded.backend_tokenizer
    except Exception as error:  # whatever files or the network make transformers raise
        reason = " ".join(str(error).split())[:200]
        raise Refusal(
            f"no tokenizer can be had from {source} ({reason}); put tokenizer.json and "
            "tokenizer_config.json beside the model, or install `nacre[text]`"
        ) from error
    # Without files of a tokenizer, transformers makes one that knows its special tokens alone: each
    # document would be read as nothing but unknown words.
    if not set(backend.get_vocab(with_added_tokens=False)) - set(loaded.all_special_tokens):
        raise Refusal(
            f"no tokenizer can be had from {source} (it holds no vocabulary); put tokenizer.json "
            "and tokenizer_config.json beside the model, as they stand on the hub"
        )
    backend.no_padding()
    backend.no_truncation()
    return PieceTokenizer(backend, loaded.eos_token_id, _around(backend))


def _around(backend: Any) -> tuple[list[int], list[int]]:
    """The tokens that the model's own template puts before and after a document, found by encoding
    a single letter."""
    plain = list(backend.encode("a", add_special_tokens=False).ids)
    full = list(backend.encode("a", add_special_tokens=True).ids)
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return full[:start], full[start + len(plain) :]
    return [], []


def _of_run(place: Path) -> PieceTokenizer:
    """The tokenizer that a finished run kept beside its model."""
    try:
        model = parsed((place / "model.json").read_text(encoding="utf-8"))
        files = (model.get("option") or {}).get("files") or {}
        return of_description(model["tokenizer"], files)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refusal(
            f"the run {place} kept no tokenizer ({type(error).__name__}), so its text cannot be "
            "read again; name the tokenizer that it used, as `tokenizer: {kind: bytes}`"
        ) from error


def of_description(
    known: Mapping[str, Any],  # as `described` gave it
    files: Mapping[str, str],  # of the pretrained model: name and text
) -> PieceTokenizer:
    """The tokenizer that a finished run describes. Raises `KeyError`, `TypeError` or `ValueError`
    for a description that nacre has not written, `Refusal` without the library tokenizers."""
    backend = _tokenizers().Tokenizer.from_str(known["file"] or files["tokenizer.json"])
    return PieceTokenizer(
        backend, known["end"], (known["before"], known["after"]), known["vocabulary"]
    )


def described(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """What a finished run keeps beside its model; None for bytes."""
    if not tokenizer.file:
        return None
    before, after = tokenizer.around()
    return {
        "file": tokenizer.file,
        "vocabulary": tokenizer.vocabulary,
        "end": tokenizer.end,
        "before": before,
        "after": after,
    }


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise Refusal(
            f"text needs the library tokenizers, which is not installed ({error}); run "
            "`pip install 'nacre[text]'`, or use `tokenizer: {kind: bytes}`"
        ) from error
    return tokenizers
