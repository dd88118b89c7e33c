"""The sizes that a benchmark varies."""

from pydantic import PositiveInt

from configuration.spec import Spec


class BenchShape(Spec):
    """Sizes of one call; each kernel takes those it needs."""

    tokens: PositiveInt = 4096
    width: PositiveInt = 512
    experts: PositiveInt = 8
    top_k: PositiveInt = 2
    expert_width: PositiveInt = 512
    vocabulary: PositiveInt = 4096
    heads: PositiveInt = 8
    sequence: PositiveInt = 512

    @property
    def rows(self) -> int:
        """Rows that the experts receive."""
        return self.tokens * self.top_k
