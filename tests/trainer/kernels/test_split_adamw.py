"""fp32 weights as a bf16 parameter and an int16 remainder."""

import copy
import gc
import math
import os
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.bench.kernel_kinds import kernel_times
from trainer.split_adamw import SplitAdamW, _reference_update, joined, parted

SETTINGS = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
SIZES = ((1, 7, 2047, 2048, 2049, 100_003), (5, 3 * 2048, 64))
"""Of the parameters of two groups."""

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
on_gpu_or_interpreted = pytest.mark.skipif(
    find_spec("triton") is None or not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"),
    reason="needs Triton, and a CUDA device or TRITON_INTERPRET=1",
)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**99), max_value=2.0**99), min_size=1, max_size=50))
def test_a_weight_comes_back_bit_for_bit(values):
    weight = torch.tensor(values, dtype=torch.float32)
    high, low = parted(weight)
    assert torch.equal(joined(high, low), weight)
    assert torch.all((high.float() - weight).abs() <= (weight.to(torch.bfloat16).float() - weight).abs() * (1 + 1e-6))


def test_steps_are_those_of_adamw_in_fp32():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(50, 7, generator=generator).to(torch.bfloat16)
    split, plain = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.float())
    optimizers = SplitAdamW([{"params": [split]}], **SETTINGS), torch.optim.AdamW([plain], **SETTINGS)
    for _ in range(20):
        split.grad = torch.randn(50, 7, generator=generator).to(torch.bfloat16)
        plain.grad = split.grad.float()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.allclose(joined(split.detach(), optimizers[0].state[split]["remainder"]), plain.detach(), rtol=1e-6, atol=1e-7)


def test_states_keep_their_types_when_they_are_loaded():
    parameter = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    parameter.grad = torch.ones_like(parameter)
    optimizer = SplitAdamW([{"params": [parameter]}], lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
    optimizer.step()
    before = {name: value.clone() for name, value in optimizer.state[parameter].items()}
    optimizer.load_state_dict(optimizer.state_dict())
    assert all(torch.equal(optimizer.state[parameter][name], value) and optimizer.state[parameter][name].dtype == value.dtype for name, value in before.items())


def tensors_of(count: int, shift: int, device: str) -> tuple[torch.Tensor, ...]:
    """What one step of ``count`` weights reads and writes; all but the step begin ``shift`` elements behind what an allocator gives."""
    drawn = (torch.randn(count), torch.randint(-(2**15), 2**15, (count,)), torch.randn(count), 0.1 * torch.randn(count), torch.rand(count))
    types = (torch.bfloat16, torch.int16, torch.bfloat16, torch.float32, torch.float32)
    placed = [torch.zeros(count + shift, dtype=kind, device=device)[shift:] for kind in types]
    for tensor, values in zip(placed, drawn, strict=True):
        tensor.copy_(values)
    return (*placed, torch.randint(1, 100, ()).float().to(device))


@on_gpu_or_interpreted
@pytest.mark.gpu
@pytest.mark.parametrize("with_squares", [False, True])
@pytest.mark.parametrize("shift", [0, 1])
def test_one_launch_updates_parameters_of_every_size_wherever_they_lie(shift: int, with_squares: bool) -> None:
    from trainer.kernels.triton.split_adamw import table, update

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    groups = [[tensors_of(count, shift, device) for count in sizes] for sizes in (*SIZES, (3,) * 20)]
    before = [[[tensor.cpu().clone() for tensor in tensors] for tensors in group] for group in groups]
    launches = table(groups, torch.device(device))
    assert [launch.programs for launch in launches] == [1 + 1 + 1 + 1 + 2 + 49, 1 + 3 + 1, 20]
    scale, rate = (torch.tensor(value, device=device) for value in (0.37, 1e-3))
    for group, old, launch in zip(groups, before, launches, strict=True):
        squares = torch.full((launch.programs,), math.nan, device=device) if with_squares else None
        update(launch, scale, rate, squares, decay=0.1, log_betas=(math.log(0.9), math.log(0.95)), betas=(0.9, 0.95), epsilon=1e-8)
        if squares is not None:
            expected = sum((0.37 * gradient.double()).square().sum() for _, _, gradient, *_ in old)
            assert squares.double().sum().item() == pytest.approx(expected.item(), rel=1e-6)
        for tensors, (parameter, remainder, gradient, first, second, step) in zip(group, old, strict=True):
            state = {"exp_avg": first, "exp_avg_sq": second, "step": step, "remainder": remainder}
            _reference_update(parameter, state, 0.37 * gradient.float(), SETTINGS | {"lr": 1e-3})
            got = [tensor.cpu() for tensor in tensors]
            assert torch.allclose(joined(got[0], got[1]), joined(parameter, remainder), rtol=1e-5, atol=1e-6)
            assert torch.equal(got[2], gradient)
            assert torch.allclose(got[3], first, rtol=1e-5, atol=1e-6)
            assert torch.allclose(got[4], second, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1", reason="needs Triton's compiler")
@pytest.mark.parametrize("starts", [8, 128, 1024])
def test_whole_blocks_move_sixteen_bytes_an_access(starts: int) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from trainer.kernels.triton.split_adamw import BLOCK, _update

    pointers = {"starts_ptr": "*i64", "rows_ptr": "*i64", "scale_ptr": "*fp32", "rate_ptr": "*fp32", "square_ptr": "*fp32"}
    numbers = dict.fromkeys(("decay", "log_beta1", "log_beta2", "beta1", "beta2", "epsilon"), "fp32")
    constants = {"WITH_SQUARES": True, "STARTS": starts, "COLUMNS": 8, "BLOCK": BLOCK}
    source = ASTSource(_update, pointers | numbers | dict.fromkeys(constants, "constexpr"), constants)
    code = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8}).asm["ptx"]
    # Eight weights of each of 256 threads: 14 bytes a weight are read and 12 written.
    assert (code.count("ld.global.v4.b32"), code.count("st.global.v4.b32")) == (7, 6)


def optimizer_on(device: str, start: list[list[torch.Tensor]]) -> SplitAdamW:
    groups = [[torch.nn.Parameter(values.to(device, copy=True)) for values in group] for group in start]
    return SplitAdamW([{"params": group, "weight_decay": decay} for group, decay in zip(groups, (0.1, 0.0), strict=True)], **SETTINGS)


def parameters_of(optimizer: SplitAdamW) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def weights_of(optimizer: SplitAdamW) -> torch.Tensor:
    return torch.cat([joined(parameter.detach(), optimizer.state[parameter]["remainder"]).flatten().cpu() for parameter in parameters_of(optimizer)])


def drawn(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape).to(torch.bfloat16)


def pair() -> tuple[SplitAdamW, SplitAdamW]:
    """The same parameters on the CPU, where the formula is tensor operations, and on CUDA."""
    torch.manual_seed(0)
    start = [[drawn((size,)) for size in sizes] for sizes in SIZES]
    start[0].append(drawn((40, 24)))
    return optimizer_on("cpu", start), optimizer_on("cuda", start)


@on_gpu
@pytest.mark.gpu
def test_steps_on_cuda_are_the_formula_wherever_gradients_and_states_lie() -> None:
    plain, fused = pair()
    alive = []
    for number in range(6):
        for index, (one, other) in enumerate(zip(parameters_of(plain), parameters_of(fused), strict=True)):
            if (number, index) in ((1, 2), (1, 3), (4, 0)):
                one.grad = other.grad = None
                continue
            one.grad = drawn(one.shape)
            if number != 3:
                # What lives on elsewhere takes the addresses of the steps before.
                alive.append(other.grad)
                other.grad = one.grad.cuda()
                if one.dim() == 2:
                    other.grad = one.grad.T.contiguous().cuda().T
            else:
                assert other.grad is not None
                other.grad.copy_(one.grad)
        if number == 4:
            alive.append(fused.state_dict())
            fused.load_state_dict(copy.deepcopy(fused.state_dict()))
        for optimizer in (plain, fused):
            optimizer.scale_gradients(torch.tensor(0.5, device="cuda" if optimizer is fused else "cpu"))
        if number % 2:
            fused.measure_norm()
        plain.step()
        fused.step()
        if number % 2:
            norm = math.sqrt(sum(float((0.5 * one.grad.double()).square().sum()) for one in parameters_of(plain) if one.grad is not None))
            assert fused.measured_norm().item() == pytest.approx(norm, rel=1e-5)
        assert torch.allclose(weights_of(fused), weights_of(plain), rtol=1e-5, atol=1e-6)


@on_gpu
@pytest.mark.gpu
def test_a_step_on_cuda_launches_one_kernel_for_each_group() -> None:
    _, fused = pair()
    for parameter in parameters_of(fused):
        parameter.grad = torch.ones_like(parameter)
    fused.step()
    assert sum(kernel.launches for kernel in kernel_times(fused.step) if kernel.name == "_update") == len(SIZES)


@on_gpu
@pytest.mark.gpu
def test_a_captured_step_is_replayed_on_the_gradients_of_its_own_graph() -> None:
    plain, fused = pair()
    rate = torch.tensor(SETTINGS["lr"], device="cuda")
    for group in fused.param_groups:
        group["lr"] = rate
    given = [torch.zeros(parameter.shape, dtype=torch.bfloat16, device="cuda") for parameter in parameters_of(fused)]

    def step() -> torch.Tensor:
        """Gradients are made anew, as a backward pass makes them."""
        for parameter, values in zip(parameters_of(fused), given, strict=True):
            parameter.grad = 2 * values
        fused.measure_norm()
        fused.step()
        fused.zero_grad(set_to_none=True)
        return fused.measured_norm()

    def stepped(take: torch.cuda.CUDAGraph | None) -> None:
        for one, values in zip(parameters_of(plain), given, strict=True):
            half = drawn(one.shape)
            values.copy_(half)
            one.grad = 2 * half
        plain.step()
        if take is None:
            step()
        else:
            take.replay()
        torch.cuda.synchronize()
        assert torch.allclose(weights_of(fused), weights_of(plain), rtol=1e-5, atol=1e-6)

    stepped(None)
    graphs, norms = [torch.cuda.CUDAGraph() for _ in range(2)], []
    for graph in graphs:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            norms.append(step())
        # Whatever host or device memory the capture let go of is written to.
        gc.collect()
        _ = [torch.zeros(2**power, dtype=torch.int64, pin_memory=True).to("cuda", non_blocking=True) for power in range(4, 12) for _ in range(4)]
    for _ in range(2):
        for graph, norm in zip(graphs, norms, strict=True):
            stepped(graph)
            expected = math.sqrt(sum(float(one.grad.double().square().sum()) for one in parameters_of(plain)))
            assert norm.item() == pytest.approx(expected, rel=1e-5)
        stepped(None)
