"""Cross-entropies that have the head with them, against a float64 loop over tokens."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from simulator.specs.chunks import chunk_rows
from trainer.kernels.chunked_cross_entropy import IGNORED, chunked_linear_cross_entropy
from trainer.kernels.cross_entropy import LINEAR_CROSS_ENTROPIES

TOKENS, WIDTH, VOCABULARY = 300, 16, 64
BOUNDS = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float64: 1e-14}
"""Relative errors of loss and gradients that are allowed; bf16 rounds the logits' gradient to 2^-9."""


def factors(dtype: torch.dtype, ignored: slice = slice(0, 0)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_TD, weight_VD = (torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for rows in (TOKENS, VOCABULARY))
    labels_T = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
    labels_T[ignored] = IGNORED
    return x_TD, weight_VD, labels_T


def reference(x_TD: torch.Tensor, weight_VD: torch.Tensor, labels_T: torch.Tensor) -> torch.Tensor:
    losses = []
    for x_D, label in zip(x_TD, labels_T.tolist(), strict=True):
        if label != IGNORED:
            logits_V = weight_VD @ x_D
            losses.append(torch.log(torch.exp(logits_V - logits_V.max()).sum()) + logits_V.max() - logits_V[label])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("kernel", LINEAR_CROSS_ENTROPIES)
@pytest.mark.parametrize("ignored", [slice(0, 0), slice(100, 260)], ids=["every label", "a whole chunk ignored"])
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_loss_and_gradients_are_the_loops(dtype: torch.dtype, ignored: slice, kernel: str) -> None:
    x_TD, weight_VD, labels_T = factors(dtype, ignored)
    wide = [tensor.detach().double().requires_grad_() for tensor in (x_TD, weight_VD)]
    loss, wanted = LINEAR_CROSS_ENTROPIES[kernel](x_TD, weight_VD, labels_T), reference(*wide, labels_T)
    (loss * 0.5).backward()
    (wanted * 0.5).backward()
    assert float(abs(loss.detach().double() - wanted.detach()) / wanted.detach()) < BOUNDS[dtype]
    for tensor, exact in zip((x_TD, weight_VD), wide, strict=True):
        assert tensor.grad.dtype == dtype
        assert float((tensor.grad.double() - exact.grad).norm() / exact.grad.norm()) < BOUNDS[dtype]


@pytest.mark.parametrize("kernel", LINEAR_CROSS_ENTROPIES)
def test_no_token_at_all_gives_zero_and_no_gradient(kernel: str) -> None:
    x_TD, weight_VD, labels_T = factors(torch.float32, slice(0, TOKENS))
    loss = LINEAR_CROSS_ENTROPIES[kernel](x_TD, weight_VD, labels_T)
    loss.backward()
    assert loss.item() == 0
    assert not x_TD.grad.any()
    assert not weight_VD.grad.any()


def test_fp32_weights_of_a_bf16_model_get_an_fp32_gradient() -> None:
    x_TD, _, labels_T = factors(torch.bfloat16)
    weight_VD = factors(torch.float32)[1]
    chunked_linear_cross_entropy(x_TD, weight_VD, labels_T).backward()
    assert (x_TD.grad.dtype, weight_VD.grad.dtype) == (torch.bfloat16, torch.float32)


class LargestStorage(TorchDispatchMode):
    """Elements of the largest storage that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.untyped_storage().nbytes() // result.element_size())
        return result


def test_all_logits_are_never_there() -> None:
    tokens, width, vocabulary = 1024, 8, 512
    rows = chunk_rows(tokens, width, vocabulary)
    assert rows == 128
    x_TD, weight_VD = (torch.randn(count, width, requires_grad=True) for count in (tokens, vocabulary))
    with LargestStorage() as largest:
        chunked_linear_cross_entropy(x_TD, weight_VD, torch.zeros(tokens, dtype=torch.int64)).backward()
    assert largest.elements == rows * vocabulary


@pytest.mark.parametrize(
    ("tokens", "width", "vocabulary", "rows"), [(2048, 128, 2048, 128), (16384, 2048, 50304, 768), (64, 64, 512, 64), (5000, 64, 64, 5000)]
)
def test_rows_of_a_chunk_by_hand(tokens: int, width: int, vocabulary: int, rows: int) -> None:
    # 16384 x 2048 / 50304 = 667.1 rows, up to the next multiple of 128.
    assert chunk_rows(tokens, width, vocabulary) == rows
