"""In-place cross-entropy against PyTorch's in float64."""

import pytest
import torch
import torch.nn.functional as F

from trainer.kernels.chunked_cross_entropy import IGNORED
from trainer.kernels.cross_entropy import linear_cross_entropy

BOUNDS = {torch.float32: 5e-6, torch.bfloat16: 1e-2, torch.float64: 1e-14}
"""Errors of loss and gradients that are allowed, relative to their size or, for losses below it, to one; sums over 50,257 numbers have the largest."""


def check(x_TD: torch.Tensor, weight_VD: torch.Tensor, labels_T: torch.Tensor) -> None:
    given = [tensor.requires_grad_() for tensor in (x_TD, weight_VD)]
    wide = [tensor.detach().double().requires_grad_() for tensor in given]
    loss, wanted = linear_cross_entropy(*given, labels_T), F.cross_entropy(wide[0] @ wide[1].t(), labels_T, ignore_index=IGNORED)
    (loss * 0.5).backward()
    (wanted * 0.5).backward()
    bound = BOUNDS[x_TD.dtype]
    assert abs(loss.item() - wanted.item()) < bound * max(1.0, wanted.item())
    for tensor, exact in zip(given, wide, strict=True):
        assert float((tensor.grad.double() - exact.grad).norm()) <= bound * max(1e-6, float(exact.grad.norm()))


@pytest.mark.parametrize("vocabulary", [1, 3, 17, 1000, 50257])
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_loss_and_gradients_of_any_vocabulary(dtype: torch.dtype, vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x_TD, weight_VD = (torch.randn(rows, 16, generator=generator, dtype=torch.float64).to(dtype) for rows in (37, vocabulary))
    labels_T = torch.randint(vocabulary, (37,), generator=generator)
    labels_T[5:9] = IGNORED
    check(x_TD, weight_VD, labels_T)


@pytest.mark.parametrize("label", [0, 1])
def test_a_probability_of_nearly_one_and_one_below_the_smallest_number(label: int) -> None:
    # Logits 300 and 0: a loss of exp(-300), and one of 300, of a probability that fp32 has no number for.
    check(torch.tensor([[300.0]]), torch.tensor([[1.0], [0.0]]), torch.tensor([label]))
