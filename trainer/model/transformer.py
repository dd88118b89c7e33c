"""The decoder: embedding, blocks, final norm, head.

Shapes: B batch, S sequence, T = B S tokens, D width, V vocabulary, E experts.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simulator.components import Component
from simulator.specs import ModelSpec, MoeFeedForward, Plan
from simulator.specs.model import BlockGroup
from trainer.kernels.cross_entropy import LINEAR_CROSS_ENTROPIES
from trainer.kernels.precision import at_least_fp32
from trainer.kernels.rope import tables
from trainer.measure.scope import scope
from trainer.model.attention import Attention, document_mask
from trainer.model.cache import KVCache
from trainer.model.feed_forward import FeedForward
from trainer.model.linear import Linear, RMSNorm
from trainer.model.moe import MoE
from trainer.model.router import RouterRecord

OWN_END_ID = 1
"""End token of the tokenizers that the trainer makes."""


class Losses(NamedTuple):
    """Scalars of one micro-batch. ``total`` is what is minimised; the others are detached and without coefficients."""

    total: Tensor
    language_model: Tensor
    load_balancing: Tensor | None
    router_z: Tensor | None
    counts_LE: list[Tensor]
    """Tokens of each expert of each MoE layer."""


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, group: BlockGroup, model: ModelSpec, plan: Plan) -> None:
        super().__init__()
        implementation = plan.implementation
        self.attention_norm = RMSNorm(model.width, model.norm_epsilon, implementation.norm)
        self.attention = Attention(group.mixer, model.width, model.norm_epsilon, implementation.norm, implementation.rope)
        self.feed_forward_norm = RMSNorm(model.width, model.norm_epsilon, implementation.norm)
        self.feed_forward: MoE | FeedForward
        if isinstance(group.feed_forward, MoeFeedForward):
            self.feed_forward = MoE(
                group.feed_forward, model.width, implementation,
                load_balancing=model.load_balancing_loss > 0, router_z=model.router_z_loss > 0, uniform=plan.routing == "uniform",
            )  # fmt: skip
        else:
            self.feed_forward = FeedForward(model.width, group.feed_forward.hidden_width, implementation.swiglu)

    def forward(
        self, x_TD: Tensor, batch: int, angles: tuple[Tensor, Tensor], cache: KVCache | None = None, layer: int = 0, mask_B1SS: Tensor | None = None
    ) -> tuple[Tensor, RouterRecord | None]:
        mixed_TD = self.mixed(x_TD, batch, angles, cache, layer, mask_B1SS)
        with scope(Component.ATTENTION_OUTPUT):
            x_TD = x_TD + mixed_TD
        del mixed_TD
        fed_TD, record = self.fed(x_TD)
        with scope(Component.DENSE_FEED_FORWARD if record is None else Component.COMBINE):
            return x_TD.add(fed_TD), record

    def mixed(self, x_TD: Tensor, batch: int, angles: tuple[Tensor, Tensor], cache: KVCache | None, layer: int, mask_B1SS: Tensor | None) -> Tensor:
        """attention(norm(x))."""
        with scope(Component.ATTENTION_NORM):
            normalised_TD = self.attention_norm(x_TD)
        out_TD: Tensor = self.attention(normalised_TD, batch, angles, cache, layer, mask_B1SS)
        return out_TD

    def fed(self, x_TD: Tensor) -> tuple[Tensor, RouterRecord | None]:
        """feed_forward(norm(x)), and what a router leaves behind."""
        with scope(Component.FEED_FORWARD_NORM):
            normalised_TD = self.feed_forward_norm(x_TD)
        if isinstance(self.feed_forward, FeedForward):
            return self.feed_forward(normalised_TD), None
        out_TD, record = self.feed_forward(normalised_TD)
        return out_TD, record


class MoETransformer(nn.Module):
    """A decoder-only language model with experts where its specification has them."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, spec: ModelSpec, plan: Plan) -> None:
        super().__init__()
        self.spec = spec
        self.linear_cross_entropy = LINEAR_CROSS_ENTROPIES.get(plan.implementation.cross_entropy)
        self.compute_dtype = torch.float32 if plan.precision == "fp32" else torch.bfloat16
        self.embedding = nn.Parameter(torch.empty(spec.vocabulary, spec.width))
        self.blocks = nn.ModuleList([Block(group, spec, plan) for group in spec.blocks for _ in range(group.count)])
        self.final_norm = RMSNorm(spec.width, spec.norm_epsilon, plan.implementation.norm)
        self.head = None if spec.tied_embeddings else Linear(spec.width, spec.vocabulary)
        self.head_widths = sorted({group.mixer.head_width for group in spec.blocks})
        for width in self.head_widths:
            cosine, sine = tables(spec.maximum_positions, width, spec.rope_theta, "cpu")
            self.register_buffer(f"cosine_{width}", cosine, persistent=False)
            self.register_buffer(f"sine_{width}", sine, persistent=False)
        self.document_start = None if plan.attention_across_documents else OWN_END_ID
        """Token that opens a document, before which attention does not look; None: it looks at all of a sequence."""
        self.own_tokens: Callable[[Tensor], Tensor] = torch.flatten
        """Of (B, S) ids those whose rows this rank works on between attentions, flattened: all, unless tensor parallelism says otherwise."""
        self.all_tokens: Callable[[Tensor], Tensor] = _as_they_are
        """The rows of all tokens, from those of this rank."""

    def forward(self, inputs_BS: Tensor, labels_BS: Tensor) -> Losses:
        """Losses of one micro-batch; ``labels`` are the inputs shifted by one, both int64."""
        records: list[RouterRecord] = []
        language_model = self.cross_entropy(self.finished(self._decoded(inputs_BS, records)), labels_BS)
        with scope(Component.TOTAL_LOSS):
            total = language_model
            balance = _mean([record.load_balancing for record in records])
            if balance is not None:
                total = total + balance * self.spec.load_balancing_loss
            z = _mean([record.router_z for record in records])
            if z is not None:
                total = total + z * self.spec.router_z_loss
        return Losses(total, language_model.detach(), _detached(balance), _detached(z), [record.counts_E for record in records])

    def cross_entropy(self, x_TD: Tensor, labels_BS: Tensor) -> Tensor:
        """Mean loss of this rank's tokens, whose ``finished`` rows are ``x``."""
        if self.linear_cross_entropy is not None:
            with scope(Component.HEAD):
                return self.linear_cross_entropy(x_TD, self.embedding if self.head is None else self.head.weight, self.own_tokens(labels_BS))
        with scope(Component.HEAD):
            logits_TV = self.projected(x_TD)
        with scope(Component.CROSS_ENTROPY):
            loss_logits_TV = at_least_fp32(logits_TV)
            del logits_TV
            log_probability_TV = F.log_softmax(loss_logits_TV, -1)
            del loss_logits_TV
            return F.nll_loss(log_probability_TV, self.own_tokens(labels_BS))

    def logits(self, inputs_BS: Tensor, cache: KVCache | None = None) -> Tensor:
        """Next-token logits (B, S, V) in fp32; with a cache, ``inputs`` are the positions after those it holds."""
        x_TD = self.all_tokens(self.finished(self._decoded(inputs_BS, [], cache)))
        return at_least_fp32(self.projected(x_TD)).view(*inputs_BS.shape, -1)

    def token_losses(self, inputs_BS: Tensor, labels_BS: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Language-model loss of each token (B, S) and tokens of each expert by MoE layer, for evaluation without gradients."""
        records: list[RouterRecord] = []
        logits_TV = at_least_fp32(self.projected(self.all_tokens(self.finished(self._decoded(inputs_BS, records)))))
        losses_T = F.cross_entropy(logits_TV, labels_BS.flatten(), reduction="none")
        return losses_T.view(labels_BS.shape), [record.counts_E for record in records]

    def attention_weights(self, inputs_BS: Tensor) -> list[Tensor]:
        """Attention probabilities (B, H, S, S) of every layer."""
        x_TD, mask_B1SS = self.embedded(inputs_BS), self._mask(inputs_BS)
        weights = []
        for block in self._blocks():
            angles = self._angles(block, 0, inputs_BS.shape[1])
            weights.append(block.attention.weights(block.attention_norm(x_TD), inputs_BS.shape[0], angles, mask_B1SS))
            x_TD, _ = block(x_TD, inputs_BS.shape[0], angles, mask_B1SS=mask_B1SS)
        return weights

    def _decoded(self, inputs_BS: Tensor, records: list[RouterRecord], cache: KVCache | None = None) -> Tensor:
        batch, new = inputs_BS.shape
        # A cache holds one document.
        mask_B1SS = self._mask(inputs_BS) if cache is None else None
        return self.through(self.embedded(inputs_BS), range(len(self.blocks)), batch, new, records, cache, mask_B1SS)

    def through(
        self, x_TD: Tensor, layers: Sequence[int], batch: int, new: int, records: list[RouterRecord],
        cache: KVCache | None = None, mask_B1SS: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The decoder blocks of these numbers, one after another, on ``batch`` sequences of ``new`` positions; routers leave ``records``."""
        start = cache.positions if cache is not None else 0
        for layer in layers:
            block = self.blocks[layer]
            assert isinstance(block, Block)
            x_TD, record = block(x_TD, batch, self._angles(block, start, start + new), cache, layer, mask_B1SS)
            if record is not None:
                records.append(record)
        return x_TD

    def _mask(self, inputs_BS: Tensor) -> Tensor | None:
        if self.document_start is None:
            return None
        with scope(Component.ATTENTION):
            return document_mask(inputs_BS, self.document_start, self.compute_dtype)

    def embedded(self, inputs_BS: Tensor) -> Tensor:
        """Rows (T, D) of this rank's tokens."""
        with scope(Component.EMBEDDING):
            return F.embedding(self.own_tokens(inputs_BS), self.embedding).to(self.compute_dtype)

    def finished(self, x_TD: Tensor) -> Tensor:
        """The final norm."""
        with scope(Component.FINAL_NORM):
            normalised: Tensor = self.final_norm(x_TD)
            return normalised

    def projected(self, x_TD: Tensor) -> Tensor:
        """Logits (T, V) of finished rows."""
        if self.head is None:
            return F.linear(x_TD, self.embedding.to(x_TD.dtype))
        logits: Tensor = self.head(x_TD)
        return logits

    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def _angles(self, block: Block, start: int, end: int) -> tuple[Tensor, Tensor]:
        width = block.attention.spec.head_width
        return self.get_buffer(f"cosine_{width}")[start:end], self.get_buffer(f"sine_{width}")[start:end]


def _as_they_are(x_TD: Tensor) -> Tensor:
    return x_TD


def _mean(losses: list[Tensor | None]) -> Tensor | None:
    present = [loss for loss in losses if loss is not None]
    return torch.stack(present).mean() if present else None


def _detached(loss: Tensor | None) -> Tensor | None:
    return None if loss is None else loss.detach()
