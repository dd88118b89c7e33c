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
