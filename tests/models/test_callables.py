import sys

import pytest

from nacre.core.errors import Refusal
from nacre.models.callables import ALLOWED, PythonModel, called

CODE = """
import os
from os import system

from torch import nn
from torch.nn import Linear

class Nets:
    @staticmethod
    def small(width):
        return nn.Linear(width, 2)

def number():
    return 3

constant = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a module of its own; what tests import is forgotten afterwards."""
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "my_nets.py").write_text(CODE)
    return tmp_path


def test_a_function_beside_the_recipe_is_called(folder):
    path = list(sys.path)
    model = called(PythonModel(call="my_nets:Nets.small", arguments={"width": 5}), folder)
    assert model.in_features == 5
    assert sys.path == path


def test_an_installed_package_is_called_where_it_is_allowed(folder, monkeypatch):
    monkeypatch.setenv(ALLOWED, "other,torch")
    option = PythonModel(call="torch.nn:Linear", arguments={"in_features": 2, "out_features": 1})
    assert called(option, folder).out_features == 1


def test_two_folders_with_modules_of_one_name_do_not_mix(folder):
    other = folder / "other"
    other.mkdir()
    (other / "my_nets.py").write_text(CODE.replace("nn.Linear(width, 2)", "nn.Linear(width, 9)"))
    option = PythonModel(call="my_nets:Nets.small", arguments={"width": 5})
    widths = [called(option, place).out_features for place in (folder, other, folder)]
    assert widths == [2, 9, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("absent_nets:make", r"there is no file absent_nets\.py.*--allow-package absent_nets"),
        ("linked:make", "there is no file"),
        ("os:system", r"there is no file os\.py"),
        ("torch.nn:Linear", "there is no file torch/nn"),
        ("my_nets:nn.Linear", "not defined in my_nets"),
        ("my_nets:Linear", "not defined in my_nets"),
        ("my_nets:system", "not defined in my_nets"),
        ("my_nets:os.system", "not defined in my_nets"),
        ("my_nets:Nets.small.__globals__", r"is no function"),
        ("my_nets:Nets.mro", "not defined in my_nets"),
        ("my_nets:absent", "AttributeError"),
        ("my_nets:constant", "is no function"),
        ("my_nets:number", "returned int where a torch.nn.Module is needed"),
        ("my_nets:Nets.small", r"failed with TypeError: .* arguments \[\]"),
        ("broken:make", "SyntaxError"),
    ],
)
def test_whatever_fails_is_one_sentence(folder, call, message):
    (folder / "broken.py").write_text("def make(:\n")
    (folder.parent / "elsewhere.py").write_text("def make():\n    raise SystemExit\n")
    (folder / "linked.py").symlink_to(folder.parent / "elsewhere.py")
    with pytest.raises(Refusal, match=message) as refusal:
        called(PythonModel(call=call), folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("call", ["", "nets", "nets:", ":make", "a b:make", "nets:make()"])
def test_a_call_names_module_and_function(call):
    with pytest.raises(ValueError, match=r"must read `package\.module:function`"):
        PythonModel(call=call)


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_arguments_are_plain_values(value):
    with pytest.raises(ValueError, match="must be plain values"):
        PythonModel(call="nets:make", arguments={"x": value})


def test_a_recipe_runs_no_program_when_it_is_planned(tmp_path):
    """`call: os:system` wrote this file at `nacre plan`."""
    written = tmp_path / "written"
    option = PythonModel(call="os:system", arguments={"command": f"touch {written}"})
    with pytest.raises(Refusal, match="a recipe may not call whatever is installed"):
        called(option, tmp_path)
    assert not written.exists()
