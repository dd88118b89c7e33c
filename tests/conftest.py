"""Slow tests are skipped unless ``--slow`` is given. Every process has one thread: tests and what they start share the cores."""

import gc
import os

import pytest

# Before numpy and torch are imported, and for every process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take more than about ten seconds")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


def pytest_collection_finish() -> None:
    """Take all that was imported out of what the garbage collector looks through: measured steps begin with a collection, of which that would be most."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def rope_parts_on_cpu() -> None:
    """The formula in place of the Triton kernel, which no CPU has, for what does not depend on who computes it."""
    import torch
    from torch import Tensor

    from trainer.kernels.rope import eager
    from trainer.kernels.rope_parts import rope_parts, rope_parts_backward

    @rope_parts.register_kernel("cpu")
    def _(x_TY: Tensor, cosine_SJ: Tensor, sine_SJ: Tensor, heads: list[int], turned: int) -> list[Tensor]:
        sequence, half = cosine_SJ.shape
        columns = torch.split(x_TY, [count * 2 * half for count in heads], -1)
        parts = [part.reshape(-1, sequence, count, 2 * half) for part, count in zip(columns, heads, strict=True)]
        return [eager(part, cosine_SJ, sine_SJ) if index < turned else part.clone() for index, part in enumerate(parts)]

    @rope_parts_backward.register_kernel("cpu")
    def _(grads_BSHC: list[Tensor], cosine_SJ: Tensor, sine_SJ: Tensor, turned: int) -> Tensor:
        back = [eager(grad, cosine_SJ, -sine_SJ) if index < turned else grad for index, grad in enumerate(grads_BSHC)]
        return torch.cat([grad.flatten(2).flatten(0, 1) for grad in back], -1)
