"""The loop over tokens, with and without a cache."""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from configuration.errors import ConfigurationError
from trainer.generation.sampling import Sampling, draw

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.model.cache import KVCache
    from trainer.model.transformer import MoETransformer


def next_tokens(
    model: "MoETransformer",
    prompt: Sequence[int],
    *,
    tokens: int,
    sampling: Sampling,
    vocabulary: int | None = None,
    stop: Collection[int] = (),
    use_cache: bool = True,
) -> Iterator[int]:
    """Yield up to ``tokens`` token ids that follow ``prompt``; ends before a token of ``stop``.

    ``vocabulary`` is the number of ids that the tokenizer has, where the model has more. The model sees the last ``maximum_positions``
    tokens, counted from position 0 again: a text that outgrows them is computed anew for every token, with or without a cache.
    Raises ConfigurationError when the prompt is empty.
    """
    if not prompt:
        raise ConfigurationError("--prompt: must not be empty")
    return _drawn(model, list(prompt), tokens, sampling, vocabulary, stop, use_cache)


def _drawn(
    model: "MoETransformer", ids: list[int], tokens: int, sampling: Sampling, vocabulary: int | None, stop: Collection[int], use_cache: bool
) -> Iterator[int]:
    import torch

    from trainer.model.cache import KVCache

    generator = torch.Generator().manual_seed(sampling.seed)
    cache = KVCache(model.spec.layers) if use_cache else None
    for _ in range(tokens):
        token = draw(_next_logits(model, ids, cache)[:vocabulary], sampling, generator)
        if token in stop:
            return
        ids.append(token)
        yield token


def _next_logits(model: "MoETransformer", ids: list[int], cache: "KVCache | None") -> "Tensor":
    import torch

    limit = model.spec.maximum_positions
    if len(ids) > limit:
        cache = None
    new = ids[-limit:] if cache is None else ids[cache.positions :]
    with torch.no_grad():
        return model.logits(torch.tensor([new], device=next(model.parameters()).device), cache)[0, -1]
