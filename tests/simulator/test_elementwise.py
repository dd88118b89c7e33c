"""Which element-wise kernels go element by element, and what they cost."""

import pytest

from simulator.components import Component, Kind, Phase
from simulator.explanation import explain
from simulator.program.graph import ItemKind, Shape, Value
from simulator.program.operations import Operation
from simulator.program.optimizer import gradient_scaling
from simulator.program.sizes import ONE, B, D, S, Size, T, V
from simulator.question import ask
from simulator.specs.presets import DEVICES
from simulator.time.elementwise import is_irregular
from simulator.time.kernels import cost

BF16, FP32 = ItemKind.BF16, ItemKind.FP32
TWICE = Size(2) * D


def value(shape: Shape, item: ItemKind = FP32) -> Value:
    return Value("value", shape, item)


def operation(*reads: Value, writes: Value, name: str = "mul", opaque: bool = False) -> Operation:
    return Operation(name, Kind.POINTWISE, Phase.FORWARD, Component.ROPE, reads, (writes,), traffic=(*reads, writes), opaque=opaque)


def test_tensors_of_one_shape_and_type_are_regular() -> None:
    assert not is_irregular(operation(value((T, D)), value((T, D)), writes=value((T, D))))
    assert not is_irregular(operation(value((B, S, D)), writes=value((T, D))))


def test_what_is_widened_is_irregular_and_what_is_narrowed_is_not() -> None:
    wide, narrow = value((T, D)), value((T, D), BF16)
    assert is_irregular(operation(narrow, writes=wide, name="_to_copy"))
    assert not is_irregular(operation(wide, writes=narrow, name="_to_copy"))
    assert is_irregular(operation(wide, narrow, writes=wide))


@pytest.mark.parametrize("shape", [(T, ONE), (D,), (ONE,)])
def test_what_is_broadcast_is_irregular(shape: Shape) -> None:
    assert is_irregular(operation(value((T, D)), value(shape), writes=value((T, D))))


def test_columns_of_a_storage_are_irregular_and_its_rows_are_not() -> None:
    x = value((T, TWICE))
    assert is_irregular(operation(x.part("half", (T, D)), writes=value((T, D))))
    assert is_irregular(operation(value((T, D)), writes=x.viewed((T, D))))
    assert not is_irregular(operation(value((V, D)).part("rows", (T, D)), writes=value((T, D))))
    assert not is_irregular(operation(x.viewed((B, S, TWICE)), writes=x))


def test_a_compilers_and_opaque_kernels_are_regular_and_so_are_those_that_are_written_otherwise() -> None:
    wide, narrow = value((T, D)), value((T, D), BF16)
    assert not is_irregular(operation(narrow, writes=wide, opaque=True))
    assert not is_irregular(operation(narrow, narrow, writes=value((T, TWICE), BF16), name="cat"))
    assert not is_irregular(operation(value((ONE,)), value((T,), ItemKind.INT64), writes=value((T, V)), name="nll_loss_backward"))


def test_gradients_times_a_number_on_the_device_are_irregular_and_what_reads_nothing_is_not() -> None:
    (scaling,) = gradient_scaling([value((T, D)), value((D,))])
    assert is_irregular(scaling)
    x = value((T, D))
    assert not is_irregular(operation(writes=x.viewed((Size(0),)), name="empty_like"))


def test_a_line_says_which_rate_it_took() -> None:
    explained = explain(ask("tiny-moe", "single-node", device="h200-sxm-141gb", gpus=1), "time.backward.attention_norm")
    sources = {term.what.rpartition(" ")[2]: term.source for term in explained.terms}
    assert (sources["mul_"], sources["_to_copy"]) == ("pointwise, element by element", "pointwise")
    assert any("bytes/s, element by element" in remark for remark in explained.remarks)


def test_a_cast_takes_the_rate_of_irregular_traffic_and_without_one_that_of_all() -> None:
    device, bindings = DEVICES.load("h200-sxm-141gb"), {"B": 4.0, "S": 256.0, "T": 1024.0, "D": 1024.0}
    cast = operation(value((T, D), BF16), writes=value((T, D)), name="_to_copy")
    rate = device.kernels[Kind.POINTWISE]
    assert rate.irregular_bytes_per_s is not None
    size = 6 * 1024 * 1024
    assert cost((cast,), bindings, device).moving_s[0] == pytest.approx(size / rate.irregular_bytes_per_s.value)
    plain = device.model_copy(update={"kernels": device.kernels | {Kind.POINTWISE: rate.model_copy(update={"irregular_bytes_per_s": None})}})
    assert cost((cast,), bindings, plain).moving_s[0] == pytest.approx(size / rate.bytes_per_s.value)
