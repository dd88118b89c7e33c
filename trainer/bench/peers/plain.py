"""A plain MoE decoder as one would write it in an afternoon: fused QKV, sort, two grouped GEMMs, ``index_add``; fp32 weights under autocast.

Shapes: B batch, S sequence, T = B S tokens, D width, H heads, C head width, E experts, K experts a token, R = T K rows, F expert width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simulator.specs import ModelSpec, MoeFeedForward
from trainer.kernels.rope import tables


class PlainBlock(nn.Module):
    """Attention and experts, each behind a norm; routing is forced to be uniform where ``uniform`` says so."""

    def __init__(self, width: int, heads: int, moe: MoeFeedForward, uniform: bool) -> None:
        super().__init__()
        self.heads, self.moe, self.uniform = heads, moe, uniform
        self.norms = nn.ModuleList([nn.RMSNorm(width, eps=1e-5) for _ in range(2)])
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.router = nn.Linear(width, moe.experts, bias=False)
        self.gate_up = nn.Parameter(torch.randn(moe.experts, width, 2 * moe.expert_width) * 0.02)
        self.down = nn.Parameter(torch.randn(moe.experts, moe.expert_width, width) * 0.02)

    def forward(self, x_BSD: Tensor, cosine_SC: Tensor, sine_SC: Tensor) -> Tensor:
        x_BSD = x_BSD + self.attention(self.norms[0](x_BSD), cosine_SC, sine_SC)
        return x_BSD + self.experts(self.norms[1](x_BSD).flatten(0, 1)).view_as(x_BSD)

    def attention(self, x_BSD: Tensor, cosine_SC: Tensor, sine_SC: Tensor) -> Tensor:
        """Causal attention with rotary positions."""
        batch, sequence, width = x_BSD.shape
        query, key, value = self.qkv(x_BSD).view(batch, sequence, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key = (_turned(x, cosine_SC, sine_SC).to(value.dtype) for x in (query, key))
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed: Tensor = self.out(out.transpose(1, 2).reshape(batch, sequence, width))
        return mixed

    def experts(self, x_TD: Tensor) -> Tensor:
        """Sort rows by expert, two grouped GEMMs, add the weighted rows up."""
        probability_TE = self.router(x_TD).float().softmax(-1)
        weight_TK, expert_TK = probability_TE.topk(self.moe.top_k)
        if self.uniform:
            expert_TK = (torch.arange(expert_TK.numel(), device=x_TD.device) % self.moe.experts).view_as(expert_TK)
            weight_TK = probability_TE.gather(1, expert_TK)
        weight_TK = weight_TK / weight_TK.sum(-1, keepdim=True)
        order_R = expert_TK.flatten().argsort(stable=True)
        token_R = order_R // self.moe.top_k
        ends_E = F.one_hot(expert_TK.flatten(), self.moe.experts).sum(0).cumsum(0).int()
        rows = x_TD[token_R].bfloat16()
        gate, up = F.grouped_mm(rows, self.gate_up.bfloat16(), offs=ends_E).chunk(2, -1)
        rows = F.grouped_mm(F.silu(gate) * up, self.down.bfloat16(), offs=ends_E)
        rows = rows * weight_TK.flatten()[order_R, None].to(rows.dtype)
        return torch.zeros_like(x_TD, dtype=rows.dtype).index_add_(0, token_R, rows)


class PlainModel(nn.Module):
    """Embedding, blocks, norm, head; ``forward`` gives the mean cross-entropy."""

    def __init__(self, spec: ModelSpec, *, uniform: bool) -> None:
        super().__init__()
        group = spec.blocks[0]
        assert isinstance(group.feed_forward, MoeFeedForward)
        self.embedding = nn.Embedding(spec.vocabulary, spec.width)
        self.blocks = nn.ModuleList([PlainBlock(spec.width, group.mixer.heads, group.feed_forward, uniform) for _ in range(group.count)])
        self.norm, self.head = nn.RMSNorm(spec.width, eps=1e-5), nn.Linear(spec.width, spec.vocabulary, bias=False)
        cosine, sine = tables(spec.maximum_positions, group.mixer.head_width, spec.rope_theta, "cpu")
        self.register_buffer("cosine", cosine)
        self.register_buffer("sine", sine)

    def forward(self, inputs_BS: Tensor, labels_BS: Tensor) -> Tensor:
        x_BSD = self.embedding(inputs_BS).bfloat16()
        positions = inputs_BS.shape[1]
        for block in self.blocks:
            x_BSD = block(x_BSD, self.get_buffer("cosine")[:positions], self.get_buffer("sine")[:positions])
        return F.cross_entropy(self.head(self.norm(x_BSD)).flatten(0, 1), labels_BS.flatten())


def _turned(x_BHSC: Tensor, cosine_SC: Tensor, sine_SC: Tensor) -> Tensor:
    first, second = x_BHSC.float().chunk(2, -1)
    return torch.cat([first * cosine_SC - second * sine_SC, second * cosine_SC + first * sine_SC], -1)
