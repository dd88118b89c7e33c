"""Hugging Face's OLMoE of the same shape, which runs its experts by PyTorch's grouped GEMM; its norms of queries and keys come on top."""

from typing import Any

import torch
from torch import Tensor, nn

from simulator.specs import ModelSpec, MoeFeedForward


class HuggingFaceModel(nn.Module):
    """``forward`` gives the mean cross-entropy. Routing is learned: with random tokens and weights it is nearly uniform."""

    def __init__(self, spec: ModelSpec, *, sequence: int) -> None:
        super().__init__()
        from transformers import OlmoeConfig, OlmoeForCausalLM

        group = spec.blocks[0]
        assert isinstance(group.feed_forward, MoeFeedForward)
        config: Any = OlmoeConfig(  # type: ignore[call-arg]
            vocab_size=spec.vocabulary, hidden_size=spec.width, intermediate_size=group.feed_forward.expert_width, num_hidden_layers=spec.layers,
            num_attention_heads=group.mixer.heads, num_key_value_heads=group.mixer.kv_heads, num_experts=group.feed_forward.experts,
            num_experts_per_tok=group.feed_forward.top_k, norm_topk_prob=True, max_position_embeddings=sequence, use_cache=False,
            attn_implementation="sdpa", experts_implementation="grouped_mm",
        )  # fmt: skip
        self.model: Any = OlmoeForCausalLM(config)

    def forward(self, inputs_BS: Tensor, labels_BS: Tensor) -> Tensor:
        logits_BSV = self.model(input_ids=inputs_BS).logits
        return torch.nn.functional.cross_entropy(logits_BSV.flatten(0, 1), labels_BS.flatten())
