"""The frame of a command line: what a command runs into is told in one line."""

import pytest

from configuration.command import new_app, run


def test_a_package_of_an_extra_that_is_missing_is_named_with_its_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    app = new_app("An app.")

    @app.command("train")
    def train() -> None:
        """Train."""
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    @app.command("other")
    def other() -> None:
        """Run into a fault of ours."""
        raise ModuleNotFoundError("No module named 'ours'", name="ours")

    monkeypatch.setattr("sys.argv", ["program", "train"])
    with pytest.raises(SystemExit) as left:
        run(app, "program")
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: program needs the package torch, which is not installed (pip install 'moe-ledger[train]')\n"
    monkeypatch.setattr("sys.argv", ["program", "other"])
    with pytest.raises(ModuleNotFoundError):
        run(app, "program")
