"""torch.compile, applied to a model from outside: each decoder block and the final norm, each as one graph.

Blocks of one shape share their code. The head is left out: its kernels work in place.
"""

import torch

from trainer.model.transformer import MoETransformer


def compile_blocks(model: MoETransformer) -> None:
    """Compile what repeats. A graph break is an error, not a slow path."""
    for module in (*model.blocks, model.final_norm):
        module.compile(fullgraph=True, dynamic=False)
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, 16)
