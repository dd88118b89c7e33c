"""DeviceSpec: what one accelerator (or CPU) can do, every constant with its source."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from configuration.spec import Spec
from simulator.components import Kind

Origin = Literal["spec", "fitted", "assumed"]


class Constant(Spec):
    """A number with its source: ``spec`` (data sheet), ``fitted`` (to which measurements) or ``assumed``."""

    value: PositiveFloat
    origin: Origin
    reference: str
    standard_error: NonNegativeFloat | None = None


class Overhead(Constant):
    """A constant that may be zero."""

    value: NonNegativeFloat


class KernelRate(Spec):
    """How fast kernels of one kind run: seconds = launches × launch overhead + FLOPs / ``flops_per_s`` + traffic / ``bytes_per_s``,
    exponentials / ``exponentials_per_s`` of the device, scores of attention / ``scores_per_s``, and further products of a group ×
    ``product_overhead_s``.

    The terms add: a kernel of small dimensions is slow because its traffic is large beside its FLOPs, which is how the rate
    depends on size. Kinds without ``flops_per_s`` are priced by their traffic alone.
    """

    bytes_per_s: Constant
    irregular_bytes_per_s: Constant | None = None
    """Of element-wise kernels that widen, broadcast or go through parts of rows; None: they are as fast as the others."""
    flops_per_s: dict[Literal["fp32", "bf16"], Constant] = Field(default_factory=dict)
    backward_flops_per_s: dict[Literal["fp32", "bf16"], Constant] = Field(default_factory=dict)
    """Where the backward pass runs other kernels: attention."""
    backward_bytes_per_s: Constant | None = None
    """Of those kernels, which add up the gradient of the queries in fp32 and convert it in a pass of its own; None: as ``bytes_per_s``."""
    scores_per_s: Constant | None = None
    """Of attention's softmax, which no matrix unit computes: exponentials, maxima and rescaling, as many for narrow heads as for wide ones."""
    backward_scores_per_s: Constant | None = None
    """The same in backward: exponentials anew, and the gradient of the softmax."""
    launch_overhead_s: Overhead | None = None
    """Where it differs from the device's own."""
    product_overhead_s: Overhead | None = None
    """Of each further matrix product in one launch of a grouped kernel."""


PRICED_KINDS = tuple(kind for kind in Kind if kind not in (Kind.COLLECTIVE, Kind.HOST_SYNC))


class DeviceSpec(Spec):
    """One device.

    ``host_and_device_are_one``: operations run where they are issued (CPU). Otherwise the host needs ``host_overhead_s`` to issue a
    kernel and runs ahead of the device. ``machine``: on which machine the constants were fitted.
    """

    name: str
    source: str
    machine: str = ""
    host_and_device_are_one: bool = False
    default_precision: Literal["fp32", "bf16-mixed"] = "bf16-mixed"
    memory_bytes: PositiveInt | None
    matrix_workspace_bytes: Constant | None = None
    """Work space that the library of matrix products keeps for each thread that calls it; None: none, or it is not known."""
    peak_flops_per_s: Annotated[dict[Literal["fp32", "bf16"], Constant], Field(default_factory=dict)]
    launch_overhead_s: Overhead
    host_overhead_s: Overhead
    hook_overhead_s: Overhead | None = None
    """Of the host, in each hook of ``fully_shard`` that gathers or reduces a unit, beside its calls; None: not measured, left out."""
    listed_launch_overhead_s: Overhead | None = None
    """Of each launch of a call over all parameters at once, where it is less than others': no Python lies between them."""
    graph_launch_overhead_s: Overhead | None = None
    """Of a kernel in a CUDA graph that the host launches as a whole; None: it is taken to be ``launch_overhead_s``."""
    exponentials_per_s: Constant | None = None
    """Elements that kernels raise e to (softmax, SiLU) take this time beside that of their traffic; None: they take no more."""
    kernels: dict[Kind, KernelRate]

    def peak_for(self, precision: str) -> float | None:
        """Peak FLOP/s of the compute type of a plan's ``precision``; None when no sheet gives one."""
        constant = self.peak_flops_per_s.get("fp32" if precision == "fp32" else "bf16")
        return None if constant is None else constant.value
