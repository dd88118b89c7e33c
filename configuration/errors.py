"""The one error that a user can cause, and the words it is told in."""

import difflib
from collections.abc import Iterable


class ConfigurationError(ValueError):
    """A value that the user gave is not legal.

    The message is one line: where the value stands (file and field), what is wrong, and the legal values.
    Commands print it on stderr and leave with exit code 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to ``word``, else an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def unknown(kind: str, word: str, known: Iterable[str]) -> ConfigurationError:
    """Return the error for a name that is not among the known ones, which it lists."""
    names = sorted(known)
    return ConfigurationError(f"{kind}: unknown name {word!r}{did_you_mean(word, names)} (known: {', '.join(names)})")
