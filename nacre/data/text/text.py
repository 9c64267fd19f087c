"""Text from JSONL, CSV, TSV, Parquet or plain files: a row is a document, or a prompt with its
answer."""

# PartyCells of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nacre.core import require
from nacre.core.errors import BadArgument, DataError
from nacre.data.dataset import Cohorts, Rows, Schema, checked
from nacre.data.files import rows_named
from nacre.data.readers import form_problem
from nacre.data.scaling import NoScaling
from nacre.data.sketches.cells import Cells
from nacre.data.sketches.files import PartyCells
from nacre.data.split import Holdout, PublicFile, held_out
from nacre.data.text import tokens
from nacre.data.text.canaries import Canaries, inserted
from nacre.data.text.documents import Documents, read_documents
from nacre.data.text.encode import NOT_COUNTED, Encoder
from nacre.data.text.token_cache import Aids, keyed_name
from nacre.data.text.tokens import BPE, Bytes, OfModel, Tokenizer, TokenizerOption


@dataclass(frozen=True, kw_only=True)
class Text:
    """Rows of text. Each document has a row of its own, of a declared length: documents that share
    a row (packing) would share a gradient, which no clipping could take apart."""

    kind: Literal["text"] = "text"
    path: str
    """The file, relative to the recipe: .jsonl, .csv, .tsv, each plain or .gz, .parquet, or a plain
    .txt of documents."""
    text: str | None = None
    """The column that holds the documents; of a .txt there is none."""
    prompt: str | None = None
    """The column of what is asked, instead of `text`; it is read and not learnt."""
    completion: str | None = None
    """The column of what is to be answered: the loss counts its tokens alone."""
    documents: Literal["line", "paragraph"] = "line"
    """What a document of a .txt is: a line, or lines up to an empty one."""
    label: str | None = None
    """The column to predict; not for causal_lm. For token_classification a class a word."""
    task: Literal["classification", "regression", "causal_lm", "token_classification"] = (
        "classification"
    )
    """What is learnt; it has to be the task of the model."""
    classes: tuple[str, ...] = ()
    """Every value of the label, as text, in the order of the model's outputs."""
    length: int = 128
    """Tokens of a row. Longer documents are cut, each by itself."""
    cut: Literal["end", "start"] = "end"
    """Which side of a document that is too long is left out; of a prompt, where there is one."""
    tokenizer: TokenizerOption | None = None
    """How text becomes tokens; None takes the tokenizer of the model."""
    unit: str | None = None
    """The column whose value is shared by all rows of one person."""
    party: str | None = None
    """The column that names who holds a row."""
    size: int
    """Declared number of private units, after the holdout: public, used for rates."""
    public_demonstration: bool = False
    """Whether all rows are public, so that figures on any of them may be shown."""
    holdout: Holdout | None = None
    """Rows kept out of training, to score the model with."""
    test: PublicFile | None = None
    """Another file with the same columns to score the model with, instead of a holdout; public."""
    public: PublicFile | None = None
    """Another file with the same columns whose rows are public; unit and party are not needed."""
    canaries: Canaries | None = None
    """Random secrets that a language model reads beside the private documents, for its audit."""
    on_missing: Literal["refuse", "drop"] = "refuse"
    """What to do with a row that lacks its text or its label."""

    def sentence(self) -> str:
        """Which file."""
        return f"documents of {self.path}"

    def assumptions(self, folder: Path) -> list[str]:
        """How documents become rows of tokens, and what stands beside them."""
        option = self.tokenizer if self.tokenizer is not None else Bytes()
        side = "beginning" if self.cut == "start" else "end"
        found = [
            f"Tokens are {option.sentence()}.",
            f"A row holds one document, of which {self.length} tokens at most are read; a longer "
            f"one loses its {side}.",
        ]
        return found if self.canaries is None else [*found, self.canaries.sentence()]

    def __post_init__(self) -> None:
        require.at_least(1, size=self.size)
        require.at_least(2, length=self.length)
        if self.holdout and self.test:
            raise BadArgument("holdout and test exclude each other; keep one")
        if isinstance(self.tokenizer, BPE) and self.public is None:
            raise BadArgument(
                "tokenizer bpe learns its pieces from public rows and none are declared; add "
                "`public: {path: …}`, or use `tokenizer: {kind: bytes}`"
            )
        learns_text = self.task == "causal_lm" and self.prompt is None
        if self.canaries is not None and (not learns_text or self.party is not None):
            raise BadArgument(
                "canaries are documents among those that a language model learns word for word, in "
                "one place: they need task causal_lm, no prompt and no party; leave them out"
            )
        if problem := form_problem(self.path) or self._form_problem() or self._label_problem():
            raise BadArgument(problem)
        roles = [self.text, self.prompt, self.completion, self.label, self.unit, self.party]
        named = [role for role in roles if role is not None]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise BadArgument(
                f"column {twice[0]!r} has two roles among text, prompt, completion, label, unit "
                "and party; keep one"
            )

    def _form_problem(self) -> str | None:
        if (self.prompt is None) != (self.completion is None):
            return "prompt and completion need each other; name both columns"
        if self.prompt is not None and (self.text is not None or self.task != "causal_lm"):
            return "prompt and completion are for task causal_lm, and replace `text`; keep one form"
        plain = self.path.removesuffix(".gz").endswith(".txt")
        columns = (self.text, self.prompt, self.label, self.unit, self.party)
        if plain and any(name is not None for name in columns):
            return f"path={self.path!r} is plain text, which has no columns; leave their names out"
        if not plain and self.text is None and self.prompt is None:
            return (
                "name the column that holds the documents by `text`, or `prompt` and `completion`"
            )
        return None

    def _label_problem(self) -> str | None:
        if self.label is not None and self.task == "causal_lm":
            return (
                f"label={self.label!r} has no meaning for task=causal_lm, which learns the text "
                "itself; leave it out, or change the task"
            )
        if self.label is None and self.task != "causal_lm":
            return f"task={self.task} needs `label`; causal_lm alone learns the text itself"
        if self.task in ("classification", "token_classification"):
            if len(set(self.classes)) < max(2, len(self.classes)):
                return f"classes={self.classes} must name at least two different classes"
        elif self.classes:
            return f"classes={self.classes} have no meaning for task={self.task}; leave them out"
        return None

    @property
    def scaling(self) -> NoScaling:
        """Tokens are not scaled."""
        return NoScaling()

    @property
    def has_public(self) -> bool:
        """Whether `read` will return public rows."""
        return self.public is not None

    @property
    def has_test(self) -> bool:
        """Whether `read` will return test rows."""
        return self.holdout is not None or self.test is not None

    def schema(self, folder: Path = Path()) -> Schema:
        """What a row looks like: `length` tokens of the tokenizer's vocabulary. Reads no row."""
        option = self.tokenizer
        if isinstance(option, OfModel):
            count = tokens.of_model(option, folder).vocabulary
        else:
            count = option.vocabulary if isinstance(option, BPE) else tokens.BYTES.vocabulary
        return Schema((self.length,), (), self.task, self.classes, tokens=count)

    def tokenized(self, folder: Path) -> Tokenizer:
        """The tokenizer. One of pieces reads the public file and learns them. Raises `Refusal`."""
        option = self.tokenizer
        if isinstance(option, OfModel):
            return tokens.of_model(option, folder)
        if not isinstance(option, BPE):
            return tokens.BYTES
        assert self.public is not None  # __post_init__ has refused the rest
        return tokens.learnt(option, read_documents(self, folder, self.public.path).plain())

    def encoder(self, folder: Path) -> Encoder:
        """Documents to rows as this option says."""
        return Encoder(self.tokenized(folder), self.length, self.cut)

    def read(self, folder: Path, seed: int, split_key: bytes, aids: Aids | None = None) -> Cohorts:
        """Reads and encodes every file; the holdout is chosen under `split_key`."""
        reading = _TextReading(self, folder, split_key, aids or Aids())
        private = reading.rows(self.path, keyed=True)
        test = public = None
        if self.holdout:
            private, test = held_out(private, self.holdout, split_key)
        if self.test:
            test = reading.rows(self.test.path, keyed=False)
        if self.public:
            public = reading.rows(self.public.path, keyed=False)
        shown = self.public_demonstration
        cohorts = Cohorts(
            private,
            public,
            test,
            test_is_public=shown or self.test is not None,
            private_is_public=shown,
            canaries=reading.canaries(seed),
            notes=tuple(reading.notes),
            tokenizer=tokens.described(reading.tokenizer),
            cells=reading.cells,
            parts=reading.parts,
        )
        return checked(cohorts, self.schema(folder), str(folder / self.path))


@dataclass
class _TextReading:
    """All files of a recipe while they are read."""

    option: Text
    folder: Path
    key: bytes = field(repr=False)
    aids: Aids
    notes: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.cells: tuple[Cells, ...] = ()  # of the private file
        self.parts: PartyCells = {}
        self.tokenizer = self.option.tokenized(self.folder)

    def rows(self, path: str, *, keyed: bool) -> Rows:
        """The rows of one file."""
        found = read_documents(self.option, self.folder, path, keyed=keyed)
        self.notes += found.notes
        if keyed:
            self.cells, self.parts = found.cells(), found.parts()
        features, label = self._encoded(found)
        if self.option.task in ("classification", "regression"):
            label = found.labels()
        place = torch.arange(len(found)) if found.places is None else torch.tensor(found.places)
        return Rows(features, label, found.group, found.party, found.content(), place)

    def canaries(self, seed: int) -> Rows | None:
        """The rows of the canaries that were put in; None without `data.canaries`."""
        option = self.option.canaries
        if option is None:
            return None
        texts, owners = inserted(option, seed)
        encoded = Encoder(self.tokenizer, self.option.length, self.option.cut).documents(texts)
        if encoded.cut:
            raise DataError(
                f"a canary is longer than length={self.option.length} tokens, so its secret would "
                "be cut; raise `length`, or shorten `canaries.template`"
            )
        group = tuple(owners) if self.option.unit is not None else None
        content = tuple(hashlib.sha256(text.encode()).digest() for text in texts)
        return Rows(encoded.features, encoded.label, group, None, content)

    def _encoded(self, found: Documents) -> tuple[Tensor, Tensor]:
        """(features, label), from the last reading of the same text where it was kept."""
        option = self.option
        special = (self.tokenizer.around(), self.tokenizer.end)  # not all of it is in the file
        facts = (self.tokenizer.file, special, option.task, option.length, option.cut)
        name = keyed_name(self.key, found.plain(), *facts, found.form(), found.tags)
        if kept := self.aids.kept.get(name):
            return kept["features"], kept["label"]
        what = f"tokens of {found.file.name}"
        encoder = Encoder(
            self.tokenizer,
            option.length,
            option.cut,
            lambda done, total: self.aids.advance(what, done, total),
        )
        encoded = found.encoded(encoder)
        if encoded.cut:
            self.notes.append(
                f"{found.file}: {encoded.cut} of {len(found)} documents are longer than "
                f"{option.length} tokens and lost what lies beyond"
            )
        self._some_count(found, encoded.label)
        self.aids.kept.put(name, {"features": encoded.features, "label": encoded.label})
        return encoded.features, encoded.label

    def _some_count(self, found: Documents, label: Tensor) -> None:
        """A causal model predicts from the second token on."""
        if self.option.task != "causal_lm":
            return
        silent = (label[:, 1:] == NOT_COUNTED).all(1)
        nothing: list[int] = silent.nonzero()[:, 0].tolist()
        if len(nothing) == len(label):
            raise DataError(
                f"{found.file}: no document has a token to be learnt ({rows_named(nothing)}); "
                "raise `length`, or check the columns"
            )
        if nothing:
            self.notes.append(f"{found.file}: nothing is learnt from {rows_named(nothing)}")
