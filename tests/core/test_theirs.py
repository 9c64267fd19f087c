"""What foreign code raises is told as foreign, whatever it raises."""

import pytest
import torch

from nacre.core.errors import CallFailed
from nacre.core.theirs import cause, theirs


class Mute(Exception):
    def __str__(self):
        raise ValueError("no words")


def _raises(error):
    with theirs("the data set", "a row of it is fetched"):
        raise error


def test_an_error_that_cannot_tell_itself_is_told():
    assert cause(Mute()) == "Mute: (it has no message that can be read)"
    with pytest.raises(CallFailed, match="the data set raised Mute: "):
        _raises(Mute())


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_words_about_memory_are_no_sign_that_it_ran_out(kind):
    with pytest.raises(CallFailed, match="my out of memory buffer"):
        _raises(kind("my out of memory buffer can't allocate memory"))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        KeyboardInterrupt(),
    ],
)
def test_memory_that_ran_out_and_interrupts_pass(error):
    with pytest.raises(type(error)):
        _raises(error)


def test_torch_is_believed_when_it_cannot_allocate():
    with pytest.raises(RuntimeError, match="allocate"), theirs("the model"):
        torch.empty(1 << 60)


def test_an_exit_is_told_as_theirs():
    with pytest.raises(CallFailed, match=r"the data set raised SystemExit: 3 at .*test_theirs"):
        _raises(SystemExit(3))
