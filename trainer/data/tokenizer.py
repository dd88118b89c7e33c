"""Byte-level tokenizers: byte-pair encoding trained here, or plain bytes, which is the same thing without merges."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configuration.errors import ConfigurationError
from trainer.specs.data import BEGIN, END, MADE_HERE, DataSpec

if TYPE_CHECKING:
    import tokenizers

SPECIAL_TOKENS = (BEGIN, END)
SMALLEST_VOCABULARY = len(SPECIAL_TOKENS) + 256


class Tokenizer:
    """Text to token ids and back. ``begin`` and ``end`` are the names of the boundary tokens; text that spells one of them stays text.

    Raises ConfigurationError when a boundary token is not among the tokens.
    """

    def __init__(self, inner: "tokenizers.Tokenizer", begin: str | None = BEGIN, end: str | None = END) -> None:
        inner.encode_special_tokens = True
        self._inner = inner
        self.begin, self.end = begin, end
        self.begin_id, self.end_id = (None if name is None else self._id(field, name) for field, name in (("begin_token", begin), ("end_token", end)))

    @property
    def boundary_ids(self) -> tuple[int, ...]:
        """Ids of the boundary tokens that are known."""
        return tuple(token for token in (self.begin_id, self.end_id) if token is not None)

    @property
    def vocabulary(self) -> int:
        """Number of different ids; a small corpus may have fewer merges than were asked for."""
        return int(self._inner.get_vocab_size())

    def encode(self, text: str, *, begin: bool = False) -> list[int]:
        """Ids of ``text``; with ``begin`` behind a begin token, which the tokenizer must have, else without boundary tokens."""
        ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        if begin:
            assert self.begin_id is not None
            return [self.begin_id, *ids]
        return ids

    def encode_documents(self, texts: list[str]) -> list[np.ndarray]:
        """Ids of many texts at once, on all cores."""
        return [np.asarray(encoding.ids, dtype=np.uint32) for encoding in self._inner.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ``ids``; boundary tokens are spelt out, bytes that are no UTF-8 become U+FFFD, ids never trained vanish."""
        return str(self._inner.decode(list(ids), skip_special_tokens=False))

    def to_json(self) -> str:
        """The whole tokenizer in the format of the ``tokenizers`` library."""
        return str(self._inner.to_str())

    def _id(self, field: str, name: str) -> int:
        token: int | None = self._inner.token_to_id(name)
        if token is None:
            raise ConfigurationError(f"data.{field}: the tokenizer has no token {name!r}")
        return token


def load_tokenizer(path: Path, spec: DataSpec) -> Tokenizer:
    """Read a tokenizer of the data ``spec``. Raises ConfigurationError when the file is absent or damaged."""
    import tokenizers

    try:
        inner = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"tokenizer: file {str(path)!r} does not exist") from None
    except Exception as error:  # the library raises bare Exception for text that it cannot read
        raise ConfigurationError(f"tokenizer: {path} is not readable: {error}") from None
    return Tokenizer(inner, *spec.boundaries)


def document_start(spec: DataSpec, tokenizer: Tokenizer) -> int:
    """The token that opens a document: its begin token, or the end token of the one before. Raises ConfigurationError when documents have neither."""
    if spec.end_token and tokenizer.end_id is not None:
        return tokenizer.end_id
    if spec.begin_token and tokenizer.begin_id is not None:
        return tokenizer.begin_id
    raise ConfigurationError("plan.attention_across_documents: false needs documents with data.end_token or data.begin_token (legal here: true)")


def check_vocabulary(kind: str, vocabulary: int) -> None:
    """Raise ConfigurationError when a tokenizer made here has more ids than ``vocabulary`` leaves room for."""
    if kind in MADE_HERE and vocabulary < SMALLEST_VOCABULARY:
        raise ConfigurationError(
            f"model.vocabulary: a byte-level tokenizer needs at least {SMALLEST_VOCABULARY} (256 bytes, 2 boundary tokens), got {vocabulary}"
        )


def train_tokenizer(kind: str, texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Make a tokenizer, ``byte-bpe`` or ``bytes``, of at most ``vocabulary`` ids from ``texts`` (which plain bytes do not look at).

    Byte-level BPE as in GPT-2 (Radford et al. 2019, section 2.2): merges of bytes within words, so that no text is unknown.
    """
    check_vocabulary(kind, vocabulary)
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if kind == "bytes":
        inner = Inner(models.BPE({token: index for index, token in enumerate([*SPECIAL_TOKENS, *alphabet])}, []))
        inner.add_special_tokens(list(SPECIAL_TOKENS))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        inner = Inner(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False)
        inner.train_from_iterator(texts, trainer)
    inner.decoder = decoders.ByteLevel()
    return Tokenizer(inner)
