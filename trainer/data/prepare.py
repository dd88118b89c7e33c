"""Tokens on disk: made once for a corpus, a DataSpec and a vocabulary, then mapped into memory."""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path

import numpy as np

from configuration.command import to_json
from configuration.errors import ConfigurationError
from configuration.files import read_json
from configuration.spec import Spec, validated
from trainer.data.corpus import Corpus, read_corpus
from trainer.data.tokenizer import Tokenizer, check_vocabulary, load_tokenizer, train_tokenizer
from trainer.data.unigram import unigram_cross_entropy
from trainer.specs import DataSpec
from trainer.specs.data import MADE_HERE

TRAINING_FILE, VALIDATION_FILE = "training.bin", "validation.bin"
FORMAT = 3
"""Raised when the meaning of a cached file changes, which makes old caches unused."""


class TokenFacts(Spec):
    """What is known about a prepared corpus; stands beside its tokens as ``facts.json``."""

    key: str
    """Hash of the corpus' text, the DataSpec, the vocabulary and the tokenizer library: equal keys mean equal tokens."""
    vocabulary: int
    """Ids that the tokenizer can give, boundary tokens included."""
    training_tokens: int
    validation_tokens: int
    validation_text_bytes: int
    """UTF-8 bytes of the held-out documents: what bits per byte are counted over."""
    unigram_nats_per_token: float
    """Cross-entropy of the validation tokens under the training unigram."""

    def bits_per_byte(self, nats_per_token: float) -> float:
        """A loss on the validation tokens as bits for each byte of their text; boundary tokens have a price and no bytes."""
        return nats_per_token / math.log(2) * self.validation_tokens / self.validation_text_bytes


@dataclass(frozen=True)
class TokenData:
    """A prepared corpus: two memory-mapped token streams, their tokenizer and facts."""

    facts: TokenFacts
    training: np.ndarray
    validation: np.ndarray
    tokenizer: Tokenizer


def cache_folder() -> Path:
    """Where prepared corpora lie: ``$XDG_CACHE_HOME/moe-ledger/tokens``, by default under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moe-ledger" / "tokens"


def prepare(spec: DataSpec, vocabulary: int, log: Callable[[str], None]) -> TokenData:
    """The tokens of ``spec`` for a model of ``vocabulary`` ids, from the cache or made now.

    ``log`` is told what is being made. Raises ConfigurationError when text is missing or the vocabulary too small.
    """
    corpus = read_corpus(spec)
    key = _key(corpus, vocabulary)
    folder = cache_folder() / key
    if not folder.is_dir():
        _make(corpus, vocabulary, key, folder, log)
    data = _open(folder, spec)
    if data.facts.vocabulary > vocabulary:
        raise ConfigurationError(f"model.vocabulary ({vocabulary}) is less than the {data.facts.vocabulary} ids of the data's tokenizer")
    return data


def _key(corpus: Corpus, vocabulary: int) -> str:
    # The library's version counts: another one may train another tokenizer. Only a tokenizer trained here depends on the model's vocabulary.
    kind = corpus.spec.tokenizer
    settings = [
        FORMAT,
        corpus.fingerprint,
        corpus.spec.model_dump(mode="json", exclude={"sources", "tokenizer"}),
        kind if kind in MADE_HERE else load_tokenizer(Path(kind), corpus.spec).to_json(),
        corpus.training_documents,
        vocabulary if kind == "byte-bpe" else None,
        metadata.version("tokenizers"),
    ]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _make(corpus: Corpus, vocabulary: int, key: str, folder: Path, log: Callable[[str], None]) -> None:
    kind = corpus.spec.tokenizer
    check_vocabulary(kind, vocabulary)
    log(f"preparing the data, once: {'training' if kind in MADE_HERE else 'reading'} a tokenizer ({kind})")
    tokenizer = train_tokenizer(kind, corpus.training_texts(), vocabulary) if kind in MADE_HERE else load_tokenizer(Path(kind), corpus.spec)
    log(f"encoding the corpus with {tokenizer.vocabulary:,} tokens")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{key}."))
    try:
        _encode(tokenizer, corpus.training_texts(), corpus.spec, temporary / TRAINING_FILE)
        validation_text_bytes = _encode(tokenizer, corpus.validation_texts(), corpus.spec, temporary / VALIDATION_FILE)
        training, validation = (_mapped(temporary / file, tokenizer) for file in (TRAINING_FILE, VALIDATION_FILE))
        facts = TokenFacts(
            key=key,
            vocabulary=tokenizer.vocabulary,
            training_tokens=len(training),
            validation_tokens=len(validation),
            validation_text_bytes=validation_text_bytes,
            unigram_nats_per_token=unigram_cross_entropy(training, validation, tokenizer.vocabulary),
        )
        (temporary / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
        (temporary / "facts.json").write_text(to_json(facts.model_dump()), encoding="utf-8")
        temporary.rename(folder)
    except OSError:
        # Another process has made the same tokens meanwhile; they are equal.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    log(f"{facts.training_tokens:,} tokens for training, {facts.validation_tokens:,} for validation, kept in {folder}")


def _encode(tokenizer: Tokenizer, texts: Iterator[str], spec: DataSpec, file: Path) -> int:
    """Write all documents to ``file`` as one stream of ids with their boundary tokens, a batch at a time; returns their UTF-8 bytes."""
    dtype = _dtype(tokenizer)
    before = np.array([tokenizer.begin_id] if spec.begin_token else [], dtype=dtype)
    after = np.array([tokenizer.end_id] if spec.end_token else [], dtype=dtype)
    text_bytes = 0
    with file.open("wb") as stream:
        for batch in _batches(texts, 256):
            text_bytes += sum(len(text.encode()) for text in batch)
            for ids in tokenizer.encode_documents(batch):
                stream.write(np.concatenate([before, ids.astype(dtype), after]).tobytes())
    return text_bytes


def _dtype(tokenizer: Tokenizer) -> np.dtype:
    return np.dtype("<u2" if tokenizer.vocabulary <= 2**16 else "<u4")


def _mapped(file: Path, tokenizer: Tokenizer) -> np.ndarray:
    return np.memmap(file, dtype=_dtype(tokenizer), mode="r")


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(islice(iterator, size)):
        yield batch


def _open(folder: Path, spec: DataSpec) -> TokenData:
    facts = validated(TokenFacts, read_json(folder / "facts.json", "prepared data"), str(folder / "facts.json"))
    tokenizer = load_tokenizer(folder / "tokenizer.json", spec)
    try:
        training, validation = (_mapped(folder / file, tokenizer) for file in (TRAINING_FILE, VALIDATION_FILE))
        if (len(training), len(validation)) != (facts.training_tokens, facts.validation_tokens):
            raise ValueError(f"{len(training):,} and {len(validation):,} tokens instead of {facts.training_tokens:,} and {facts.validation_tokens:,}")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"prepared data: {folder} is damaged ({error}); remove it and start again") from None
    return TokenData(facts, training, validation, tokenizer)
