"""What no file of the repository may contain: words that promise, files that grow, code that runs
what it reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST = 400  # lines

# Neither is a property of software: what they mean is decided about a use, in a place, by people.
PROMISES = re.compile(r"\b(anonymous|compliant)\b", re.IGNORECASE)
# The one sentence that may name them is the rule itself, with both words in quotes.
RULE = re.compile(r"""["'`“]anonymous["'`”] n?or ["'`“]compliant["'`”]""", re.IGNORECASE)

RUNS_WHAT_IT_READS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}
FORBIDDEN_CALLS = {
    "torch.load",
    "yaml.load",
    "yaml.load_all",
    "yaml.full_load",
    "yaml.full_load_all",
    "yaml.unsafe_load",
    "yaml.unsafe_load_all",
    "pandas.read_pickle",
}
VAGUE = {"utils", "helpers", "manager"}


def package_files(*suffixes: str) -> list[Path]:
    found = (path for path in (ROOT / "nacre").rglob("*") if path.suffix in suffixes)
    return sorted(path for path in found if "__pycache__" not in path.parts)


def texts() -> list[Path]:
    public = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/**/*.yaml")]
    return package_files(".py", ".html", ".yaml") + [path for path in public if path.exists()]


def promises(text: str) -> list[str]:
    lines = enumerate(RULE.sub("", text).splitlines(), 1)
    return [f"line {number}: {line}" for number, line in lines if PROMISES.search(line)]


def imported(tree: ast.AST) -> dict[str, str]:
    """Local name -> what it stands for, dotted, for every import of a file."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name.split(".")[0]
                names[local] = alias.name if alias.asname else local
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """`np.load` -> "numpy.load" under `import numpy as np`; "" for what has no such name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return ""


def refuses_pickles(call: ast.Call) -> bool:
    return any(
        keyword.arg == "allow_pickle"
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value is False
        for keyword in call.keywords
    )


def dangers(code: str) -> Iterator[str]:
    """Each import or call that could run code found in a file that is merely read."""
    tree = ast.parse(code)
    names = imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        else:
            modules = []
        for module in modules:
            if module.split(".")[0] in RUNS_WHAT_IT_READS:
                yield f"line {node.lineno}: imports {module}"
        if isinstance(node, ast.Call):
            name = dotted(node.func, names)
            if name in FORBIDDEN_CALLS or (name == "numpy.load" and not refuses_pickles(node)):
                yield f"line {node.lineno}: calls {name}"


def test_no_text_promises_what_software_cannot():
    offences = {str(path.relative_to(ROOT)): promises(path.read_text()) for path in texts()}
    assert {path: lines for path, lines in offences.items() if lines} == {}


def test_no_file_of_the_package_is_longer_than_a_reader_can_hold():
    files = package_files(".py", ".html", ".yaml")
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {path: count for path, count in lengths.items() if count > LONGEST} == {}


def test_nothing_that_is_read_can_run():
    found = {
        str(path.relative_to(ROOT)): list(dangers(path.read_text()))
        for path in package_files(".py")
    }
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_no_module_has_a_name_that_says_nothing():
    paths = [path.relative_to(ROOT).with_suffix("") for path in package_files(".py")]
    named = [path for path in paths if set(path.parts) & VAGUE]
    assert named == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The output is Anonymous.", 1),
        ("a GDPR-compliant model\nand\nan anonymous one", 2),
        ("anonymously; compliance; pseudonymous", 0),
        ('Nothing says "anonymous" or "compliant".', 0),
        ('It is "anonymous".', 1),
    ],
)
def test_the_search_for_promises_finds_them(text, found):
    assert len(promises(text)) == found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import pickle", 1),
        ("from joblib import dump", 1),
        ("import torch\ntorch.load('x')", 1),
        ("from torch import load as read\nread('x')", 1),
        ("import yaml as y\ny.load(t, Loader=y.SafeLoader)", 1),
        ("import yaml\nyaml.safe_load(t)\nyaml.compose(t)", 0),
        ("import numpy as np\nnp.load('x')", 1),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", 1),
        ("import numpy as np\nnp.load('x', allow_pickle=False)", 0),
        ("def load(x): ...\nload('x')\n(lambda: 1)()", 0),
        ("from . import part", 0),
    ],
)
def test_the_search_for_dangers_finds_them(code, found):
    assert len(list(dangers(code))) == found
