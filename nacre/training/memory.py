"""What the C library does with memory that PyTorch has given back.

A training step frees hundreds of megabytes and asks for as much again in the next. The GNU C
library hands such blocks back to the system, and the system clears and maps every page anew: on
virtual machines 2 to 10 µs each, which adds up to a tenth of a step and more. Kept pages in turn
break into pieces that no later block fits into where steps differ in size (texts of many widths):
a run that needed 1.4 GB came to hold 7. So pages are kept, up to a bound.

Elsewhere than on Linux with the GNU C library nothing is changed and nothing is measured.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of `mallopt`, from malloc.h
_WHOLE = 1 << 30  # blocks from here on go back at once
_GROWTH = 2.0
_LEAST = 1 << 30  # a process below this is left alone


def keep_pages() -> None:
    """Lets freed memory stay with the process, for the next step; for the rest of its life."""
    library = _library()
    if library is not None:
        library.mallopt(_MMAP_THRESHOLD, _WHOLE)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def resident() -> int:
    """Bytes of memory that this process holds; 0 where that cannot be read."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


class Bounded:
    """Gives freed pages back once the process holds twice what it did after its first step.

    Where that happens after two steps in a row, the steps themselves need as much, and the bound
    doubles. Numbers do not depend on it: it decides where tensors lie, never what is in them.
    """

    def __init__(self) -> None:
        self._library = _library()
        self._limit = 0.0
        self._given = False

    def after_step(self) -> bool:
        """Called between steps; True where pages were given back."""
        held = resident()
        if self._library is None or not held:
            return False
        if not self._limit or (self._given and held > self._limit):
            self._limit = max(_LEAST, _GROWTH * held)
        self._given = held > self._limit
        if self._given:
            self._library.malloc_trim(0)
        return self._given


def _library() -> ctypes.CDLL | None:
    """The GNU C library, where the process runs on it."""
    if platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None)


PAGES = Bounded()
"""Of this process: memory is one, however many runs and parties train in it."""
