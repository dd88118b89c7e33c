from pathlib import Path

import pytest

from configuration.errors import ConfigurationError, did_you_mean
from configuration.files import PresetFolder, read_json, write_atomically
from configuration.overrides import assign, grid_points, parse_grid, parse_single
from configuration.spec import Spec, validated
from configuration.table import RULE, table


class Wheel(Spec):
    radius_m: float
    spokes: int = 8


class Cart(Spec):
    name: str
    wheels: list[Wheel]


def folder(tmp_path: Path) -> PresetFolder[Cart]:
    (tmp_path / "barrow.yaml").write_text("name: barrow\nwheels:\n  - {radius_m: 0.3}\n")
    return PresetFolder("cart", Cart, tmp_path)


def test_a_preset_and_a_path_give_the_same(tmp_path: Path) -> None:
    carts = folder(tmp_path)
    assert carts.load("barrow") == carts.load(str(tmp_path / "barrow.yaml"))


def test_an_unknown_preset_lists_the_known_and_guesses(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cart: unknown name 'barow'; did you mean 'barrow'\? \(known: barrow\)"):
        folder(tmp_path).load("barow")


def test_an_unknown_key_names_file_field_and_legal_fields() -> None:
    with pytest.raises(ConfigurationError) as caught:
        validated(Cart, {"name": "x", "wheels": [{"radius_m": 1, "spoks": 3}]}, "cart.yaml")
    assert str(caught.value) == "cart.yaml: wheels.0.spoks: unknown key; did you mean 'spokes'? (fields: radius_m, spokes)"


def test_a_wrong_type_names_the_field() -> None:
    with pytest.raises(ConfigurationError, match=r"cart.yaml: wheels.0.radius_m: Input should be a valid number.*'wide'"):
        validated(Cart, {"name": "x", "wheels": [{"radius_m": "wide"}]}, "cart.yaml")


def test_an_error_is_one_line() -> None:
    assert "\n" not in str(ConfigurationError("two\nlines"))


def test_overrides_reach_into_lists(tmp_path: Path) -> None:
    assert folder(tmp_path).load("barrow", {"wheels.0.spokes": 12}).wheels[0].spokes == 12


def test_an_index_beyond_the_list_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no index of a list of 1"):
        assign({"wheels": [{}]}, "wheels.3.spokes", 1, "--set cart.wheels.3.spokes")


def test_a_grid_is_the_product_with_the_last_field_fastest() -> None:
    grid = parse_grid(["plan.a=1,2", "plan.b=x,[3,4]"], ["plan"])
    assert grid_points(grid)[:2] == [{"plan.a": 1, "plan.b": "x"}, {"plan.a": 1, "plan.b": [3, 4]}]


def test_exponents_without_a_point_are_numbers() -> None:
    assert parse_grid(["plan.rate=1e-3"], ["plan"]) == {"plan.rate": [1e-3]}


@pytest.mark.parametrize("text", ["plan.a", "plan=3", "=3", "plan.a="])
def test_a_setting_without_field_or_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected SPECIFICATION\.FIELD=VALUE"):
        parse_grid([text], ["plan"])


def test_a_list_is_refused_where_one_answer_is_asked() -> None:
    with pytest.raises(ConfigurationError, match="lists are for 'sweep'"):
        parse_single(["plan.a=1,2"], ["plan"])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_atomically(target, "old")
    with pytest.raises(TypeError):
        write_atomically(target, None)  # type: ignore[arg-type]
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_cut_off_json_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"a": ')
    with pytest.raises(ConfigurationError, match="not readable as JSON"):
        read_json(tmp_path / "r.json", "report")


def test_nothing_is_suggested_for_a_far_word() -> None:
    assert did_you_mean("zzz", ["spokes"]) == ""


def test_a_table_is_as_wide_as_its_cells_and_aligns_numbers_right() -> None:
    shown = table(("what", "bytes"), [("peak", "1,024"), RULE, ("all", "7")], right=(1,))
    assert shown.splitlines() == ["what  bytes", "────  ─────", "peak  1,024", "────  ─────", "all       7"]
