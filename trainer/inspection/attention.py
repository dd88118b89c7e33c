"""Where each head looks in a text.

Shapes: L layers, H heads, S tokens of the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.data.tokenizer import Tokenizer

if TYPE_CHECKING:
    from trainer.model.transformer import MoETransformer

MAP_TOKENS = 40
"""As many tokens as a map can name on its axes."""


@dataclass(frozen=True)
class AttentionMaps:
    """Attention probabilities over one text: rows are the tokens that look, columns those looked at."""

    tokens: tuple[str, ...]
    """The text of each token, as written on the axes."""
    of_tokens: int
    """Tokens of the whole text, of which the first are mapped."""
    weights_LHSS: tuple[np.ndarray, ...]
    """One (H, S, S) for each layer."""

    def as_dict(self) -> dict[str, Any]:
        """Plain content for JSON: the tokens, and what each head does on average."""
        heads = [
            {"layer": layer, "head": head} | facts for layer, weights_HSS in enumerate(self.weights_LHSS) for head, facts in enumerate(_habits(weights_HSS))
        ]
        return {"tokens": list(self.tokens), "of_tokens": self.of_tokens, "heads": heads}


def attention_maps(model: "MoETransformer", tokenizer: Tokenizer, ids: Sequence[int]) -> AttentionMaps:
    """Maps of the first tokens of ``ids``, which holds at least one."""
    import torch

    shown = list(ids[: min(MAP_TOKENS, model.spec.maximum_positions)])
    with torch.inference_mode():
        weights = model.attention_weights(torch.tensor([shown], device=model.embedding.device))
    names = tuple(axis_name(tokenizer.decode([token])) for token in shown)
    return AttentionMaps(names, len(ids), tuple(weights_BHSS[0].float().cpu().numpy() for weights_BHSS in weights))


def axis_name(text: str) -> str:
    """A token as it stands on an axis: blanks visible, at most 12 characters, letters that the figure's font may lack by their number."""
    visible = text.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")
    written = "".join(letter if letter in "⏎⇥�" or (letter.isprintable() and ord(letter) < 0x250) else f"\\u{ord(letter):04x}" for letter in visible)
    return written if len(written) <= 12 else written[:11] + "…"


def _habits(weights_HSS: np.ndarray) -> list[dict[str, float | None]]:
    """Means over the tokens after the first, which can look at itself alone: weight on certain tokens, and distance looked back."""
    length = weights_HSS.shape[-1]
    if length < 2:
        return [{"to_itself": None, "to_previous": None, "to_first": None, "distance_tokens": None} for _ in weights_HSS]
    position_S = np.arange(length)
    back_SS = position_S[:, None] - position_S
    return [
        {
            "to_itself": float(np.diagonal(weights_SS)[1:].mean()),
            "to_previous": float(np.diagonal(weights_SS, -1).mean()),
            "to_first": float(weights_SS[1:, 0].mean()),
            "distance_tokens": float((weights_SS * back_SS).sum(1)[1:].mean()),
        }
        for weights_SS in weights_HSS
    ]
