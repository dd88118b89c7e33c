"""The documents of a DataSpec, split into training and validation, and the fingerprint of their text."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from configuration.errors import ConfigurationError
from trainer.data.sources import documents
from trainer.specs import DataSpec


@dataclass(frozen=True)
class Corpus:
    """What one pass over all documents finds out. Texts are read again when they are needed: a corpus need not fit in memory."""

    spec: DataSpec
    fingerprint: str
    """SHA-256 of every document, in order."""
    training_documents: tuple[int, ...]
    """For every source, the number of documents before its validation part; 0: its only document is cut in two."""

    def training_texts(self) -> Iterator[str]:
        """Documents to learn from, in order."""
        return (text for held_out, text in self._split() if not held_out)

    def validation_texts(self) -> Iterator[str]:
        """Documents held out, in order."""
        return (text for held_out, text in self._split() if held_out)

    def _split(self) -> Iterator[tuple[bool, str]]:
        for source, first_held_out in zip(self.spec.sources, self.training_documents, strict=True):
            for index, text in enumerate(documents(source)):
                if first_held_out:
                    yield index >= first_held_out, text
                else:
                    cut = _cut(text, self.spec.validation_fraction)
                    yield False, text[:cut]
                    yield True, text[cut:]


def read_corpus(spec: DataSpec) -> Corpus:
    """Read every document once. Raises ConfigurationError when a source has no text, or too little to split."""
    digest = hashlib.sha256()
    training_documents = []
    for source in spec.sources:
        sizes_bytes = []
        for text in documents(source):
            content = text.encode()
            digest.update(len(content).to_bytes(8, "little") + content)
            sizes_bytes.append(len(content))
        if sum(sizes_bytes) < 2:
            raise ConfigurationError(f"data source {source.kind}: there is no text in it")
        training_documents.append(_first_held_out(sizes_bytes, spec.validation_fraction))
    return Corpus(spec, digest.hexdigest(), tuple(training_documents))


def _first_held_out(sizes_bytes: list[int], fraction: float) -> int:
    """Index of the first of the last documents that hold at least ``fraction`` of the bytes; at least one stays for training."""
    wanted_bytes = fraction * sum(sizes_bytes)
    index, held_out_bytes = len(sizes_bytes), 0
    while index > 1 and held_out_bytes < wanted_bytes:
        index -= 1
        held_out_bytes += sizes_bytes[index]
    return index if index < len(sizes_bytes) else 0


def _cut(text: str, fraction: float) -> int:
    """Where a lone document is cut: after the last line end before its held-out share, or right there when it has none."""
    wanted = max(1, int(len(text) * (1 - fraction)))
    return text.rfind("\n", 0, wanted) + 1 or wanted
