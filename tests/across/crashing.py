"""`nacre`, with a fault of its own: what a machine does that is switched off, or a line that drops.

python -m tests.across.crashing killed POINT … -- WORDS    a server, killed at the first of these
    messages, then resumed and killed at the second of them, …, then resumed to its end: its exit
    code
python -m tests.across.crashing without-objects COUNT -- WORDS    a party whose first COUNT
    answers are announced to the SuperLink and their parts never sent
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from nacre.cli.main import main
from nacre.federated_learning.flower import node, superlink


def killed(points: list[int], words: list[str]) -> int:
    """Each try is a fork, so that Python starts once."""
    for point in points:
        child = os.fork()
        if child == 0:
            _dies_at(point)
            os._exit(_nacre(words))
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            print(f"ended before message {point}: {status}", flush=True)
            return 3
        print(f"killed at message {point}", flush=True)
        words = [*words, "--resume"] if "--resume" not in words else words
    return _nacre(words)


def _dies_at(point: int) -> None:
    """SIGKILL before the point-th message is sent, or is taken in."""
    count = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any) -> Any:
            nonlocal count
            count += 1
            if count >= point:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args)

        return counting

    superlink.taken_apart = counted(superlink.taken_apart)
    superlink.put_together = counted(superlink.put_together)


def without_objects(at: int, words: list[str]) -> int:
    """The head of an answer goes out, and nothing after it."""
    whole = node._replied  # pyright: ignore[reportPrivateUsage]

    def replied(message: Any, reply: bytes, send: Any, push: Any) -> None:
        nonlocal at
        at -= 1
        whole(message, reply, send, push if at else lambda *_: None)  # pyright: ignore

    node._replied = replied  # pyright: ignore[reportPrivateUsage]
    return _nacre(words)


def _nacre(words: list[str]) -> int:
    sys.argv = ["nacre", *words]
    try:
        main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    return 0


if __name__ == "__main__":
    split = sys.argv.index("--")
    fault, *numbers = sys.argv[1:split]
    rest = sys.argv[split + 1 :]
    if fault == "killed":
        raise SystemExit(killed([int(number) for number in numbers], rest))
    raise SystemExit(without_objects(int(numbers[0]), rest))
