import pytest
import torch
from torch import nn

from nacre.core.errors import FileDamaged
from nacre.core.optimizers import Adagrad, Yogi
from nacre.runs import checkpoint

OPTIMIZERS = [
    lambda p: torch.optim.SGD(p, lr=0.1),
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    lambda p: torch.optim.Adam(p, lr=0.1),
    lambda p: torch.optim.AdamW(p, lr=0.1),
    Adagrad(lr=0.1).build,
    Yogi(lr=0.1).build,
]


def _model(make):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    return model, make(model.parameters())


def _steps(model, optimizer, count):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.randn(4, 3, generator=generator)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_training_goes_on_bit_for_bit(tmp_path, make):
    model, optimizer = _model(make)
    _steps(model, optimizer, 3)
    path = checkpoint.save_checkpoint(tmp_path, model, optimizer, 3, {"curve": [1.5]})
    _steps(model, optimizer, 2)
    again, restored = _model(make)
    assert checkpoint.restore(path, again, restored) == (3, {"curve": [1.5]})
    _steps(again, restored, 2)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_the_last_two_are_kept(tmp_path):
    model, optimizer = _model(OPTIMIZERS[0])
    for done in (2, 4, 10):
        checkpoint.save_checkpoint(tmp_path, model, optimizer, done, {})
    assert [p.name for p in checkpoint.checkpoints(tmp_path)] == [
        "step-00000004.safetensors",
        "step-00000010.safetensors",
    ]


def test_every_flipped_byte_is_found(tmp_path):
    model, optimizer = _model(OPTIMIZERS[2])
    _steps(model, optimizer, 1)
    path = checkpoint.save_checkpoint(tmp_path, model, optimizer, 1, {})
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(FileDamaged, match="delete this file and resume"):
            checkpoint.restore(path, *_model(OPTIMIZERS[2]))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    model, optimizer = _model(OPTIMIZERS[0])
    path = checkpoint.save_checkpoint(tmp_path, model, optimizer, 1, {})
    other = nn.Linear(5, 2)
    with pytest.raises(FileDamaged):
        checkpoint.restore(path, other, torch.optim.SGD(other.parameters(), lr=0.1))


def test_noise_of_another_step_is_refused(tmp_path):
    """A backup under another name: what it remembers was taken back already."""
    for done in (4, 6):
        kept = {"step": torch.tensor(done), "0": torch.randn(3)}
        checkpoint.write_noise(tmp_path, kept, done)
    assert int(checkpoint.read_noise(tmp_path, 6)["step"]) == 6
    old, new = (tmp_path / f"step-{done:08d}.safetensors" for done in (4, 6))
    new.write_bytes(old.read_bytes())
    with pytest.raises(FileDamaged, match="of step 4 under another name"):
        checkpoint.read_noise(tmp_path, 6)
    checkpoint.write_noise(tmp_path, {"step": torch.tensor(4), "0": torch.randn(3)}, 6)
    with pytest.raises(FileDamaged, match="damaged"):
        checkpoint.read_noise(tmp_path, 6)
