"""Freed memory: kept for the next step, and given back where too much of it gathers."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

GNU = platform.libc_ver()[0] == "glibc"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GNU, reason="the GNU C library is absent: nothing is changed"),
]

FAULTS = """
import resource, torch
from nacre.training.memory import keep_pages
def step():
    return [torch.zeros(1 << 21).add_(1) for _ in range(8)]  # 8 blocks of 8 MiB
def faults():
    for _ in range(3):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
returned = faults()
keep_pages()
print(returned, faults())
"""

PIECES = """
import sys, torch
from nacre.training import memory
memory.keep_pages()
memory._LEAST = 1 << 20
bounded = memory.Bounded()
bounded.after_step()
given, fallen, kept = 0, 0, []
for number in range(40):
    # Small blocks that stay pin the pieces between large ones that go: no later block fits.
    for place in range(30):
        large = torch.zeros((1 << 18) + number * 4096 + place * 64)
        kept.append(torch.zeros(64))
        del large
    held = [torch.zeros(1 << 20) for _ in range(60)]
    del held
    before = memory.resident()
    if bounded.after_step():
        given += 1
        fallen = max(fallen, before - memory.resident())
print(given, fallen >> 20)
"""


def told(script: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return [int(word) for word in done.stdout.split()]


def test_kept_pages_are_not_faulted_in_again() -> None:
    """64 MiB a step are 16,384 pages: twenty steps fault hundreds of thousands, or next to none."""
    returned, kept = told(FAULTS)
    assert 4 * kept < returned


def test_what_gathers_is_given_back() -> None:
    """240 MiB a step lie free at its end, the pieces aside."""
    given, fallen = told(PIECES)
    assert given >= 1
    assert fallen > 100  # MiB
