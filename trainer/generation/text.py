"""Text in, text out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from configuration.errors import ConfigurationError
from trainer.data.tokenizer import Tokenizer
from trainer.generation.sampling import DEFAULT_SAMPLING, Sampling
from trainer.generation.tokens import next_tokens

if TYPE_CHECKING:
    from trainer.model.transformer import MoETransformer

UNFINISHED = "\ufffd"
"""What bytes that are no UTF-8 decode to, among them the first bytes of a character whose others are still to come."""


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt."""

    prompt: str
    text: str
    tokens: tuple[int, ...]
    ended: bool
    """The model ended the document itself."""


def generate(
    model: "MoETransformer",
    tokenizer: Tokenizer,
    prompt: str,
    *,
    tokens: int,
    sampling: Sampling = DEFAULT_SAMPLING,
    begin_token: bool = False,
    use_cache: bool = True,
    on_text: Callable[[str], object] | None = None,
) -> Completion:
    """Continue ``prompt`` by up to ``tokens`` tokens.

    ``begin_token``: documents of the training data began with one, so the prompt gets it too. ``on_text`` is given the text piece by
    piece as it comes, in whole characters. Raises ConfigurationError when the prompt is empty.
    """
    check_prompt(prompt)
    ids = tokenizer.encode(prompt, begin=begin_token)
    written: list[int] = []
    waiting: list[int] = []
    # A document ends with an end token, or where the next one begins.
    stop = tokenizer.boundary_ids
    for token in next_tokens(model, ids, tokens=tokens, sampling=sampling, vocabulary=tokenizer.vocabulary, stop=stop, use_cache=use_cache):
        written.append(token)
        waiting.append(token)
        if on_text is not None and not (piece := tokenizer.decode(waiting)).endswith(UNFINISHED):
            on_text(piece)
            waiting.clear()
    if on_text is not None and waiting:
        on_text(tokenizer.decode(waiting))
    return Completion(prompt, tokenizer.decode(written), tuple(written), len(written) < tokens)


def check_prompt(prompt: str) -> None:
    """Raises ConfigurationError for a prompt that is empty or no text."""
    if not prompt:
        raise ConfigurationError("--prompt: must not be empty")
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise ConfigurationError("--prompt: is no valid UTF-8 text") from None
