"""Pipeline parallelism by torch.distributed.pipelining: GPipe (arXiv 1811.06965), 1F1B and its interleaved form (arXiv 2104.04473).

Layers are cut into ``pp * virtual_stages`` runs, as even as can be; run p lies on stage p mod pp. The first has the embedding, the last the final norm,
the head and the loss. Auxiliary losses arise in every stage: their gradient is attached to what the stage hands on. A tied embedding lies on
both ends, and its two gradients are summed.

Shapes: B sequences of a micro-batch, S sequence, T tokens of this rank, D width, V vocabulary.
"""

import time
from collections.abc import Iterator
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B

from simulator.components import Component, Phase
from trainer.measure.scope import backward_pass, phase, scope
from trainer.model.cache import KVCache
from trainer.model.router import RouterRecord
from trainer.parallel.world import PIPELINE, Share, World

if TYPE_CHECKING:
    from trainer.model import MoETransformer

ROUND_TRIPS = 25

SINGLE_SCHEDULES = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}


def layers_of(piece: int, pieces: int, layers: int) -> range:
    """The run of layers of one piece; the first pieces take what is left over."""
    whole, rest = divmod(layers, pieces)
    start = piece * whole + min(piece, rest)
    return range(start, start + whole + (piece < rest))


class _Attach(torch.autograd.Function):
    """Hands ``x`` on; ``loss`` gets the gradient one when backward comes by."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, loss: Tensor) -> Tensor:
        ctx.dtype = loss.dtype
        return x_TD.view_as(x_TD)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return gradients[0], torch.ones((), dtype=ctx.dtype, device=gradients[0].device)


class Piece(nn.Module):
    """One run of layers as the schedule sees it: micro-batches come in order."""

    def __init__(self, pipeline: "Pipeline", number: int) -> None:
        super().__init__()
        self.pipeline = [pipeline]
        """In a list, so that the model is not a part of this module."""
        self.layers = layers_of(number, pipeline.pieces, pipeline.model.spec.layers)
        self.first, self.last = number == 0, number == pipeline.pieces - 1
        self.micro_batch = 0

    def forward(self, x: Tensor) -> Tensor:
        """From ids (B, S) or rows (T, D) to rows."""
        (pipeline,) = self.pipeline
        records: list[RouterRecord] = []
        x_TD = self.run(x, pipeline.plan.micro_batch, pipeline.plan.sequence, records)
        with scope(Component.TOTAL_LOSS):
            loss = pipeline.noted(self.micro_batch, records)
            self.micro_batch += 1
            return x_TD if loss is None else _Attach.apply(x_TD, loss)  # type: ignore[no-untyped-call]

    def run(self, x: Tensor, batch: int, new: int, records: list[RouterRecord], cache: KVCache | None = None) -> Tensor:
        """The layers; before them the embedding of the first piece, after them the final norm of the last."""
        model = self.pipeline[0].model
        x_TD = model.through(model.embedded(x) if self.first else x, self.layers, batch, new, records, cache)
        return model.finished(x_TD) if self.last else x_TD


class _Stage(PipelineStage):
    """A stage that says when it goes forward and when backward; what the schedule does between passes is the pipeline's."""

    def forward_one_chunk(self, *arguments: Any, **named: Any) -> Any:
        with phase(Phase.FORWARD, Component.INPUTS, then=Component.PIPELINE):
            return super().forward_one_chunk(*arguments, **named)

    def backward_one_chunk(self, bwd_chunk_id: int, loss: Any = None, full_backward: bool = True, last_backward: Any = False) -> Any:
        roots = self.fwd_cache[bwd_chunk_id][0] if loss is None else (loss,)
        with backward_pass(roots, then=Component.PIPELINE):
            return super().backward_one_chunk(bwd_chunk_id, loss, full_backward, last_backward)


class Pipeline:
    """This rank's pieces of the model, and the schedule that runs them."""

    def __init__(self, model: "MoETransformer", world: World) -> None:
        self.model, self.world, self.plan = model, world, world.plan
        self.pieces = self.plan.pp * self.plan.virtual_stages
        group = world.group(Share.WHOLE, PIPELINE)
        assert group is not None
        self.group = group
        self.own = [Piece(self, number) for number in range(world.stage, self.pieces, self.plan.pp)]
        _keep(model, self.own)
        self.ends = _ends_group(world) if model.spec.tied_embeddings else None
        self.tokens: list[float | Tensor] = []
        self.records: list[list[RouterRecord]] = []
        self.losses: list[Tensor] = []
        self.schedule = self._schedule()

    def run(self, batches: list[tuple[Tensor, Tensor]], tokens: list[float | Tensor]) -> tuple[list[Tensor], list[list[RouterRecord]]]:
        """Forward and backward of all micro-batches of a step; ``tokens``: labelled ones of each.

        Returns the language-model loss of each micro-batch, zeros on all stages but the last, and the records of this stage's routers.
        """
        self.tokens, self.losses = tokens, []
        self.records = [[] for _ in batches]
        for piece in self.own:
            piece.micro_batch = 0
        # Tells the model how many tokens a micro-batch has, which only the ends see otherwise.
        self.model.own_tokens(batches[0][0])
        inputs, labels = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
        arguments = (inputs,) if self.own[0].first else ()
        target = labels if self.own[-1].last else None
        with scope(Component.PIPELINE):
            self.schedule.step(*arguments, target=target, return_outputs=False)
        losses = self.losses or [torch.zeros((), device=inputs.device) for _ in batches]
        records, self.records, self.losses = self.records, [], []
        return losses, records

    def receive_buffers(self) -> list[Tensor]:
        """Where rows and their gradients arrive, for every micro-batch; made in the first step."""
        stages = [self.schedule._stage] if hasattr(self.schedule, "_stage") else self.schedule._stages
        waiting = [info for stage in stages for kind in (stage.args_recv_info, stage.grad_recv_info) for received in kind.values() for info in received]
        return [info.buffer for info in waiting if info.buffer is not None]

    def transfer_seconds(self) -> dict[int, float]:
        """Seconds in which the rows of a micro-batch get here from each neighbouring rank when neither waits: half of a round trip. A collective call."""
        ranks = dist.get_process_group_ranks(self.group)
        rows = torch.zeros(self.plan.own_tokens, self.model.spec.width, dtype=self.model.compute_dtype, device=self.world.device)
        pairs = {(min(pair), max(pair)) for pair in zip(ranks, [*ranks[1:], ranks[0]], strict=True)}
        return {sum(pair) - self.world.rank: _half_a_round_trip(rows, pair, self.group) for pair in sorted(pairs) if self.world.rank in pair}

    def noted(self, micro_batch: int, records: list[RouterRecord]) -> Tensor | None:
        """Keep what the routers of one piece left; the auxiliary losses' part in what is minimised, None where there is none."""
        self.records[micro_batch] += records
        spec = self.model.spec
        parts = [record.load_balancing * spec.load_balancing_loss for record in records if record.load_balancing is not None]
        parts += [record.router_z * spec.router_z_loss for record in records if record.router_z is not None]
        if not parts:
            return None
        return torch.stack(parts).sum() * (self._weight(micro_batch) / spec.moe_layers)

    def _weight(self, micro_batch: int) -> float | Tensor:
        return self.tokens[micro_batch] / self.plan.tokens_per_step

    def _loss(self, x_TD: Tensor, labels_BS: Tensor) -> Tensor:
        with phase(Phase.FORWARD, Component.TOTAL_LOSS, then=Component.PIPELINE):
            loss = self.model.cross_entropy(x_TD, labels_BS)
            weight = self._weight(len(self.losses))
            self.losses.append(loss.detach())
            return loss * weight

    def _schedule(self) -> Any:
        ids = torch.empty(self.plan.micro_batch, self.plan.sequence, dtype=torch.int64, device="meta")
        rows = torch.empty(self.plan.own_tokens, self.model.spec.width, dtype=self.model.compute_dtype, device="meta", requires_grad=True)
        device = torch.device(self.world.device)
        stages: list[Any] = [
            _Stage(
                piece,
                self.world.stage + index * self.plan.pp,
                self.pieces,
                device,
                input_args=ids if piece.first else rows,
                output_args=rows,
                group=self.group,
            )
            for index, piece in enumerate(self.own)
        ]
        if self.plan.schedule == "interleaved":
            return ScheduleInterleaved1F1B(stages, self.plan.accumulation, loss_fn=self._loss, scale_grads=False)
        return SINGLE_SCHEDULES[self.plan.schedule](stages[0], self.plan.accumulation, loss_fn=self._loss, scale_grads=False)

    def finish_gradients(self) -> None:
        """Sum the gradients of a tied embedding over both ends."""
        gradient = self.model.embedding.grad if self.ends is not None else None
        if gradient is not None:
            dist.all_reduce(gradient, group=self.ends)

    def token_losses(self, inputs_BS: Tensor, labels_BS: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As the model's, on every stage; counts are those of this stage's layers."""
        records: list[RouterRecord] = []
        x_TD = self._through(inputs_BS, records, None)
        losses_BS = torch.empty(labels_BS.shape, dtype=self._wide, device=labels_BS.device)
        if x_TD is not None:
            logits_TV = self.model.projected(self.model.all_tokens(x_TD)).to(self._wide)
            losses_BS = nn.functional.cross_entropy(logits_TV, labels_BS.flatten(), reduction="none").view(labels_BS.shape)
        return self._told(losses_BS), [record.counts_E for record in records]

    def logits(self, inputs_BS: Tensor, cache: KVCache | None = None) -> Tensor:
        """As the model's, on every stage; a cache holds this stage's layers."""
        x_TD = self._through(inputs_BS, [], cache)
        logits_BSV = torch.empty(*inputs_BS.shape, self.model.spec.vocabulary, dtype=self._wide, device=inputs_BS.device)
        if x_TD is not None:
            logits_BSV = self.model.projected(self.model.all_tokens(x_TD)).to(self._wide).view(logits_BSV.shape)
        return self._told(logits_BSV)

    @property
    def _wide(self) -> torch.dtype:
        return torch.promote_types(self.model.compute_dtype, torch.float32)

    def _through(self, inputs_BS: Tensor, records: list[RouterRecord], cache: KVCache | None) -> Tensor | None:
        """All pieces, one after another, without gradients; finished rows on the last stage, None elsewhere."""
        ranks = dist.get_process_group_ranks(self.group)
        # Also tells the model how many tokens there are, which only the first stage sees otherwise.
        tokens = self.model.own_tokens(inputs_BS).shape[0]
        x: Tensor = inputs_BS
        for index, piece in enumerate(self.own):
            number = self.world.stage + index * self.plan.pp
            if not piece.first:
                x = torch.empty(tokens, self.model.spec.width, dtype=self.model.compute_dtype, device=inputs_BS.device)
                dist.recv(x, ranks[(number - 1) % self.plan.pp], group=self.group)
            x = piece.run(x, inputs_BS.shape[0], inputs_BS.shape[1], records, cache)
            if not piece.last:
                dist.send(x.contiguous(), ranks[(number + 1) % self.plan.pp], group=self.group)
        return x if self.own[-1].last else None

    def _told(self, tensor: Tensor) -> Tensor:
        """What the last stage has, on all of them."""
        tensor = tensor.contiguous()
        dist.broadcast(tensor, dist.get_process_group_ranks(self.group)[-1], group=self.group)
        return tensor


def _half_a_round_trip(rows: Tensor, pair: tuple[int, int], group: dist.ProcessGroup) -> float:
    first, second = pair
    begins = dist.get_rank() == first
    spent_s = []
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        for sends in (begins, not begins):
            if sends:
                dist.send(rows, second if begins else first, group=group)
            else:
                dist.recv(rows, second if begins else first, group=group)
        spent_s.append((time.perf_counter() - began) / 2)
    return median(spent_s)


def _keep(model: "MoETransformer", own: list[Piece]) -> None:
    """Take from the model what lies on other stages."""
    layers = {layer for piece in own for layer in piece.layers}
    for layer in range(len(model.blocks)):
        if layer not in layers:
            model.blocks[layer] = nn.Identity()
    last = own[-1].last
    if not own[0].first and not (last and model.spec.tied_embeddings):
        model.register_parameter("embedding", None)
    if not last:
        del model.final_norm
        model.head = None


def _ends_group(world: World) -> dist.ProcessGroup | None:
    """The first and the last stage; None on the stages between them. A collective call."""
    count = world.plan.stage_ranks
    pairs: Iterator[tuple[int, int]] = ((rank, rank + (world.plan.pp - 1) * count) for rank in range(count))
    groups = {pair: dist.new_group(list(pair), timeout=timedelta(seconds=world.timeout_s)) for pair in pairs}
    return next((group for pair, group in groups.items() if world.rank in pair), None)
