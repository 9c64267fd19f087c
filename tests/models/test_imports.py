"""The files that a Python model is made of, found without running it."""

from __future__ import annotations

from pathlib import Path

from nacre.models.callables import PythonModel, files_beside
from nacre.models.imports import files_reached

FILES = {
    "net.py": "import torch, blocks.deep as deep\ndef made():\n    from parts import x\n",
    "blocks/__init__.py": "raise SystemExit\n",
    "blocks/deep.py": "from . import sibling\nfrom ..net import made\nimport net\n",
    "blocks/sibling.py": "",
    "blocks/__pycache__/sibling.cpython-311.pyc": "x",
    "blocks/notes.txt": "no code",
    "parts.py": "import helper\n",
    "helper.so": "compiled",
    "helper.txt": "no code",
    "broken.py": "def (:\n",
    "other.py": "import broken\n",
    "torch_/__init__.py": "",
}


def laid(folder: Path) -> Path:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def names(found: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in found]


def test_all_that_is_imported_from_beside_is_found_and_nothing_else(tmp_path: Path) -> None:
    folder = laid(tmp_path)
    due = ["blocks/__init__.py", "blocks/deep.py", "blocks/sibling.py", "helper.so", "net.py"]
    found = files_beside(PythonModel(call="net:made"), folder)
    assert names(found, folder) == [*due, "parts.py"]
    assert files_beside(PythonModel(call="blocks.deep:made"), folder) == found
    assert names(files_reached(folder, "other"), folder) == ["broken.py", "other.py"]
    assert files_reached(folder, "torch") == []


def test_python_itself_loads_no_other_file_from_there(tmp_path: Path) -> None:
    """Against Python: every module that an import loads from the folder is among them."""
    import subprocess
    import sys

    folder = tmp_path
    (folder / "pack" / "deep").mkdir(parents=True)
    (folder / "pack" / "deep" / "low.py").write_text("import late\nfrom pack import *\n")
    (folder / "pack" / "__init__.py").write_text(
        "def f():\n    import pack.deep.low\n    import s\n"
    )
    (folder / "late.py").write_text("try:\n    import nowhere\nexcept ImportError:\n    import t\n")
    (folder / "s.py").write_text("")
    (folder / "t.py").write_text("")
    script = (
        "import sys, pack; pack.f(); print(*sorted(f for m in list(sys.modules.values()) "
        "if (f := getattr(m, '__file__', None)) and f.startswith(sys.argv[1])), sep='\\n')"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script, str(folder)], cwd=folder, capture_output=True, text=True,
        check=True, env={"PYTHONPATH": str(folder)},
    ).stdout.split()  # fmt: skip
    assert loaded == [str(path) for path in files_reached(folder, "pack")]
