"""Grouped-query causal attention with rotary positions.

Shapes: B batch, S sequence, T = B S tokens, D width, Y columns of queries, keys and values side by side, H query heads, G key-value heads, C head width,
P positions attended to.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simulator.components import Component
from simulator.specs import GroupedQueryAttention
from trainer.kernels.rope import PACKED_ROPES, ROPES
from trainer.measure.scope import scope
from trainer.model.cache import KVCache
from trainer.model.linear import Linear, RMSNorm


class Attention(nn.Module):
    """softmax(q k^T / sqrt(C)) v with causal mask; the caller supplies cosines and sines of the positions."""

    def __init__(self, spec: GroupedQueryAttention, width: int, norm_epsilon: float, norm_kernel: str, rope_kernel: str) -> None:
        super().__init__()
        self.spec = spec
        self.rope, self.packed_rope = ROPES[rope_kernel], PACKED_ROPES[rope_kernel]
        queries, keys = spec.heads * spec.head_width, spec.kv_heads * spec.head_width
        self.query = Linear(width, queries)
        self.key = Linear(width, keys)
        self.value = Linear(width, keys)
        self.output = Linear(queries, width)
        if spec.qk_norm != "none":
            widths = (spec.head_width, spec.head_width) if spec.qk_norm == "head" else (queries, keys)
            self.query_norm = RMSNorm(widths[0], norm_epsilon, norm_kernel)
            self.key_norm = RMSNorm(widths[1], norm_epsilon, norm_kernel)

    def forward(
        self, x_TD: Tensor, batch: int, angles: tuple[Tensor, Tensor], cache: KVCache | None = None, layer: int = 0, mask_B1SS: Tensor | None = None
    ) -> Tensor:
        query_BSHC, key_BSGC, value_BSGC = self.project(x_TD, batch, angles)
        if cache is not None:
            key_BSGC, value_BSGC = cache.extend(layer, key_BSGC, value_BSGC)
        with scope(Component.ATTENTION):
            out_BHSC = F.scaled_dot_product_attention(
                query_BSHC.transpose(1, 2),
                key_BSGC.transpose(1, 2),
                value_BSGC.transpose(1, 2),
                attn_mask=_mask(query_BSHC, key_BSGC) if mask_B1SS is None else mask_B1SS,
                is_causal=mask_B1SS is None and query_BSHC.shape[1] == key_BSGC.shape[1],
                enable_gqa=self.spec.heads != self.spec.kv_heads,
            )
        del query_BSHC, key_BSGC, value_BSGC
        with scope(Component.ATTENTION_OUTPUT):
            out_TD: Tensor = self.output(out_BHSC.transpose(1, 2).reshape(x_TD.shape[0], -1))
            return out_TD

    def project(self, x_TD: Tensor, batch: int, angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, normalised and turned, and values: (B, S, H, C), (B, S, G, C), (B, S, G, C)."""
        heads = (batch, x_TD.shape[0] // batch, -1, self.spec.head_width)
        with scope(Component.QKV):
            if torch.compiler.is_compiling():
                together_TY, widths = self._together(x_TD)
                if self.spec.qk_norm == "none":
                    return self.packed_rope(together_TY, *angles, [width // self.spec.head_width for width in widths])
                query, key, value = torch.split(together_TY, widths, -1)
            else:
                query, key, value = self.query(x_TD), self.key(x_TD), self.value(x_TD)
            value = value.view(heads)
        if self.spec.qk_norm != "none":
            with scope(Component.QK_NORM):
                rows = (-1, self.query_norm.weight.shape[0])
                query = self.query_norm(query.reshape(rows))
                rows = (-1, self.key_norm.weight.shape[0])
                key = self.key_norm(key.reshape(rows))
        with scope(Component.ROPE):
            query = self.rope(query.view(heads), *angles)
            key = self.rope(key.view(heads), *angles)
        return query, key, value

    def _together(self, x_TD: Tensor) -> tuple[Tensor, list[int]]:
        """Queries, keys and values side by side, and their widths: compiled code can afford to join the weights, which are small, for one wide product."""
        layers = (self.query, self.key, self.value)
        together_TY = F.linear(x_TD, torch.cat([layer.weight for layer in layers]).to(x_TD.dtype))
        return together_TY, [layer.weight.shape[0] for layer in layers]

    def weights(self, x_TD: Tensor, batch: int, angles: tuple[Tensor, Tensor], mask_B1SS: Tensor | None = None) -> Tensor:
        """Attention probabilities (B, H, S, S), for looking at."""
        query_BSHC, key_BSGC, _ = self.project(x_TD, batch, angles)
        key_BSHC = key_BSGC.repeat_interleave(self.spec.heads // self.spec.kv_heads, dim=2)
        scores = torch.einsum("bshc,bphc->bhsp", query_BSHC, key_BSHC) * self.spec.head_width**-0.5
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        if mask_B1SS is not None:
            scores = scores + mask_B1SS
        probabilities: Tensor = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        return probabilities


def document_mask(inputs_BS: Tensor, start: int, dtype: torch.dtype) -> Tensor:
    """What to add to scores, (B, 1, S, S), so that a token sees those before it in its own document, the token ``start`` that opens it included.

    An end token opens the document that follows: its label is that document's first token, predicted from the end token alone.
    """
    document_BS = (inputs_BS == start).cumsum(1)
    hidden_BSS = document_BS[:, :, None] != document_BS[:, None, :]
    hidden_BSS |= torch.ones(hidden_BSS.shape[1:], dtype=torch.bool, device=inputs_BS.device).triu(1)
    return torch.zeros(hidden_BSS.shape, dtype=dtype, device=inputs_BS.device).masked_fill_(hidden_BSS, float("-inf"))[:, None]


def _mask(query_BSHC: Tensor, key_BPGC: Tensor) -> Tensor | None:
    """No mask for a whole sequence (the kernel's causal mode) or one new position; else the causal one of the last positions."""
    new, seen = query_BSHC.shape[1], key_BPGC.shape[1]
    if new == seen or new == 1:
        return None
    return torch.ones(new, seen, dtype=torch.bool, device=query_BSHC.device).tril(seen - new)
