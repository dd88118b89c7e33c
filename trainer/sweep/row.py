"""A finished run as a row of the run table."""

from simulator.records.run_table import RunRow
from simulator.specs import MoeFeedForward
from simulator.specs.flops import executed_flops_per_token
from trainer.generation import Completion, repeated_ngram_share
from trainer.loop.run import RunResult
from trainer.loop.schedule import learning_rate, warmup_steps
from trainer.sweep.grid import Point


def row_of(point: Point, result: RunResult, sample: Completion, parent: str | None) -> RunRow:
    """What the laws need to know of a run; parameters, tokens and FLOPs are counted from its shapes. ``parent``: the trunk that it left."""
    experiment = point.experiment
    model, plan, training = experiment.model, experiment.plan, experiment.training
    feed_forwards = [group.feed_forward for group in model.blocks if isinstance(group.feed_forward, MoeFeedForward)]
    widest = max(feed_forwards, key=lambda feed_forward: feed_forward.experts, default=None)
    steps = experiment.steps
    return RunRow(
        run=point.name,
        parent_run=parent,
        settings=point.described or None,
        seed=training.seed,
        total_parameters=model.parameters,
        active_parameters=model.active_parameters,
        non_embedding_parameters=model.parameters - model.embedding_parameters,
        embedding_parameters=model.embedding_parameters,
        experts=widest.experts if widest else 1,
        top_k=widest.top_k if widest else 1,
        granularity=4 * model.width / widest.expert_width if widest else 1.0,
        layers=model.layers,
        vocabulary=model.vocabulary,
        sequence_tokens=plan.sequence,
        batch_tokens=plan.tokens_per_step,
        tokens=result.tokens,
        unique_tokens=min(result.tokens, result.data.facts.training_tokens),
        training_flops=result.tokens * executed_flops_per_token(model, plan.sequence),
        elapsed_s=result.elapsed_s,
        schedule=training.schedule.kind,
        warmup_tokens=warmup_steps(steps, training) * plan.tokens_per_step,
        peak_learning_rate=training.learning_rate,
        final_learning_rate_share=learning_rate(steps - 1, steps, training) / training.learning_rate,
        validation_loss_nats_per_token=result.validation.loss_nats_per_token,
        validation_loss_standard_error_nats_per_token=result.validation.standard_error_nats_per_token,
        validation_set=f"{result.data.facts.key[:12]}, {result.validation.tokens} tokens",
        bits_per_byte=result.bits_per_byte,
        expert_load_entropy_nats=result.validation.expert_load_entropy_nats,
        dropped_tokens_share=result.dropped_share,
        sample_text=sample.text,
        repeated_4gram_share=repeated_ngram_share(sample.tokens),
    )
