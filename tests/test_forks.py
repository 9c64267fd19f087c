"""The server of the tests forks processes that have everything imported: it says nothing of a
module that it does not find, and every process would import the rest by itself."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from tests.forks import PRELOADED, served

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_forked_process_has_everything_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    missing = tmp_path / "missing.txt"
    code = (
        f"import sys; found = [name for name in {PRELOADED!r} if name not in sys.modules]\n"
        f"open({str(missing)!r}, 'w').write(' '.join(found))"
    )
    process = served().Process(target=exec, args=(code,))
    process.start()
    process.join()
    assert missing.read_text() == ""


def test_no_other_server_is_started() -> None:
    """There is one for a process, and its list is that of whoever starts it first."""
    assert multiprocessing.get_context("forkserver") is served.__globals__["_CONTEXT"]
    others = [
        str(path.relative_to(ROOT))
        for folder in ("tests", "benchmarks", "nacre")
        for path in (ROOT / folder).rglob("*.py")
        if path.name not in ("forks.py", "test_forks.py") and "forkserver" in path.read_text()
    ]
    assert others == []
