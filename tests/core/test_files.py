import errno
import os
from pathlib import Path

import pytest
import torch

from nacre.core import files
from nacre.core.errors import FileDamaged, NacreError


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": [1, 2.5, "ü"]})
    assert files.read_json(path) == {"x": [1, 2.5, "ü"]}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_number_that_is_not_finite_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", float("nan"))


def test_a_full_disk_leaves_what_stood_there(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, 1)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(NacreError, match="No space left on device"):
        files.write_json(path, 2)
    monkeypatch.undo()
    assert files.read_json(path) == 1
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_folder_is_never_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (Path("."), tmp_path, Path("..")):
        with pytest.raises(NacreError, match="is a folder, so no file can take its place"):
            files.write_json(folder, 1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b""])
def test_damaged_json_is_a_sentence(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(FileDamaged, match=r"a\.json cannot be read"):
        files.read_json(path)


def test_a_missing_json_is_a_sentence(tmp_path):
    with pytest.raises(FileDamaged, match="No such file"):
        files.read_json(tmp_path / "none.json")


def test_tensors_round_trip_even_where_they_share_memory(tmp_path):
    w = torch.arange(6.0).reshape(2, 3)
    path = tmp_path / "a.safetensors"
    files.save_tensors(path, {"a": w, "b": w.t(), "c": w[0]}, {"note": "x"})
    tensors, metadata = files.load_tensors(path)
    assert torch.equal(tensors["b"], w.t())
    assert torch.equal(tensors["c"], w[0])
    assert metadata == {"note": "x"}


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"\xff" * 64, b"\x08" + b"\x00" * 7 + b"{}"])
def test_damaged_tensors_are_a_sentence(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileDamaged, match="not a readable safetensors file"):
        files.load_tensors(path)


def test_missing_tensors_are_a_sentence(tmp_path):
    with pytest.raises(FileDamaged, match="not a readable"):
        files.load_tensors(tmp_path / "none.safetensors")
