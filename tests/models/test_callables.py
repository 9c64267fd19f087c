import sys

import pytest

from nacre.core.errors import Refusal
from nacre.models.callables import Code, PythonModel, called

CODE = """
from torch import nn

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


@pytest.mark.parametrize("package", ["torch", "torch.nn"])
def test_an_installed_package_is_called_where_it_is_allowed(folder, package):
    option = PythonModel(call="torch.nn:Linear", arguments={"in_features": 2, "out_features": 1})
    with pytest.raises(Refusal, match="--allow-package torch"):
        called(option, folder)
    assert called(option, folder, Code(packages=(package,))).out_features == 1


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
        ("absent_nets:make", r"cannot be imported from .*there is no absent_nets\.py"),
        ("my_nets:absent", "AttributeError"),
        ("my_nets:constant", "is no function"),
        ("my_nets:number", "returned int where a torch.nn.Module is needed"),
        ("my_nets:Nets.small", r"failed with TypeError: .* arguments \[\]"),
        ("broken:make", "SyntaxError"),
        (
            "raising:make",
            r"ValueError: at import at .*raising\.py:2, in <module>\); correct the file",
        ),
    ],
)
def test_whatever_fails_is_one_sentence(folder, call, message):
    (folder / "broken.py").write_text("def make(:\n")
    (folder / "raising.py").write_text("import os\nraise ValueError('at import')\n")
    with pytest.raises(Refusal, match=message) as refusal:
        called(PythonModel(call=call), folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("call", ["", "nets", "nets:", ":make", "a b:make", "nets:make()"])
def test_a_call_names_module_and_function(call):
    with pytest.raises(ValueError, match=r"must read `package\.module:function`"):
        PythonModel(call=call)


@pytest.mark.parametrize("call", ["nets.py:build", "./nets.py:build"])
def test_a_file_is_no_module(call):
    with pytest.raises(ValueError, match="write `nets:build`"):
        PythonModel(call=call)


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_arguments_are_plain_values(value):
    with pytest.raises(ValueError, match="must be plain values"):
        PythonModel(call="nets:make", arguments={"x": value})


HOSTILE = """
import functools
import os
import subprocess
import torch
from torch import nn

class Shell:
    run = subprocess.call

table = {}
partial = functools.partial(os.system)

def net():
    return nn.Linear(1, 1)
"""


@pytest.mark.parametrize(
    "call",
    [
        "os:system",  # importable, and loaded long before
        "posix:system",
        "subprocess:call",
        "builtins:eval",
        "torch:load",
        "nacre:load",
        "hostile:os.system",  # what a file imports is not what it defines
        "hostile:subprocess.call",
        "hostile:torch.load",
        "hostile:torch.hub.load",
        "hostile:Shell.run",
        "hostile:nn.Linear",
        "hostile:partial",
        "hostile:table.update",
        "hostile:functools.partial",
        "linked:net",  # a link out of the recipe's folder
        "linked_package.nets:net",
        "json:net",  # a file with the name of another module
        "torch:net",
    ],
)
def test_nothing_but_a_function_defined_beside_the_recipe_is_called(folder, tmp_path_factory, call):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for place in (folder / "hostile.py", elsewhere / "nets.py", folder / "json.py"):
        place.write_text(HOSTILE)
    (elsewhere / "__init__.py").write_text("")
    (folder / "linked.py").symlink_to(elsewhere / "nets.py")
    (folder / "linked_package").symlink_to(elsewhere)
    if call == "torch:net":
        (folder / "torch.py").write_text(HOSTILE)
    with pytest.raises(Refusal, match=r"defined in|be imported|is a link|installed"):
        called(PythonModel(call=call), folder)


def test_another_module_that_was_loaded_before_is_not_taken_for_the_file(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "my_nets", type(sys)("my_nets"))
    option = PythonModel(call="my_nets:Nets.small", arguments={"width": 5})
    assert called(option, folder).out_features == 2


def test_a_folder_that_is_itself_reached_by_a_link_is_fine(folder, tmp_path_factory):
    link = tmp_path_factory.mktemp("links") / "recipes"
    link.symlink_to(folder)
    option = PythonModel(call="my_nets:Nets.small", arguments={"width": 5})
    assert called(option, link).out_features == 2


@pytest.mark.parametrize(
    "call", ["nets:net.__class__", "nets:net.__globals__.get", "nets:_net", "nets:net.__call__"]
)
def test_private_names_are_no_functions(call):
    with pytest.raises(ValueError, match="names something private"):
        PythonModel(call=call)


@pytest.mark.parametrize("call", ["../nets:net", "/tmp/nets:net", "nets.py:net", "..nets:net"])
def test_a_module_is_no_path(folder, call):
    with pytest.raises((ValueError, Refusal)):
        called(PythonModel(call=call), folder)


@pytest.mark.parametrize(
    "name", ["os", "subprocess", "builtins", "../x", "", "a b", "importlib.util"]
)
def test_only_packages_that_may_hold_models_are_allowed(name):
    with pytest.raises(ValueError, match="packages="):
        Code(packages=(name,))
