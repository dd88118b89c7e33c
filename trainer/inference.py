"""Open a checkpoint's model for looking at it: generation and inspection."""

from typing import TYPE_CHECKING

from trainer.checkpoints import Checkpoint, load_model_weights

if TYPE_CHECKING:
    from trainer.model.transformer import MoETransformer


def open_model(checkpoint: Checkpoint) -> "MoETransformer":
    """The model of ``checkpoint`` with its weights, on the device it was trained on where this machine has it, else on the CPU.

    It computes in fp32 whatever precision it was trained in: then a cache changes results by rounding of 1e-7 instead of 1e-2.
    Raises ConfigurationError when the weights are cut off or of another model.
    """
    import torch

    from simulator.specs import Implementation
    from trainer.data.tokenizer import document_start
    from trainer.model.build import build_model

    experiment = checkpoint.experiment
    device = "cuda" if experiment.training.device == "cuda" and torch.cuda.is_available() else "cpu"
    # Kernels that only a GPU or only training has use for are left behind; how experts are stored is not.
    plain = Implementation(experts=experiment.plan.implementation.experts)
    plan = experiment.plan.model_copy(update={"precision": "fp32", "implementation": plain})
    model = build_model(experiment.model, plan, seed=0, device=device)
    if not experiment.plan.attention_across_documents:
        model.document_start = document_start(experiment.data, checkpoint.tokenizer())
    load_model_weights(checkpoint, model)
    return model
