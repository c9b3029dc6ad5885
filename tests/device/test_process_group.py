"""The place of a process among others; what needs real ranks is in tests/integration."""

import numpy as np
import pytest

from src.device import process_group as ranks
from src.device.process_group import ProcessGroup
from src.utils.errors import UserError


class Wire(ProcessGroup):
    """Rank 1 of 3, whose neighbours send what they are given."""

    def __init__(self, *sent):
        super().__init__(1, 3)
        self.sent = sent
        self.turn = 0

    def _gather(self, values):
        self.turn += 1
        if self.turn == 1:  # the lengths come first
            rows = [np.array([len(data)], np.int32) for data in self.sent]
        else:
            padded = [data.ljust(values.nbytes, b"\0") for data in self.sent]
            rows = [np.frombuffer(data, np.int32) for data in padded]
        return np.stack([rows[0], values, rows[1]])


def test_a_process_alone_is_the_first_of_one_and_gathers_its_own_value():
    assert ranks.this_process().is_main_process and ranks.this_process().world_size == 1
    assert ProcessGroup().gather({"a": 1}) == [{"a": 1}]
    assert ranks.share_of_cores() is None


def test_values_of_different_lengths_come_in_the_order_of_the_process_group():
    wire = Wire(b'"\xc3\xa4 long text of rank 0"', b"[2.5, NaN]")
    first, own, last = wire.gather(0.1)
    assert (first, own, last[0]) == ("ä long text of rank 0", 0.1, 2.5)
    assert not wire.is_main_process


def test_cores_are_shared_with_the_ranks_of_the_same_machine_alone(monkeypatch):
    pair = ProcessGroup(3, 16)
    pair.local_world_size = 8
    monkeypatch.setattr(ranks, "_process_group", pair)
    monkeypatch.setattr(ranks, "available_cores", lambda: 64)
    assert ranks.share_of_cores() == 8


def test_joining_without_a_launcher_says_how_to_start_one(monkeypatch):
    monkeypatch.delenv(ranks.ROLE, raising=False)
    with pytest.raises(UserError, match="python -m src.distributed 2 train"):
        ranks.join("CPU")


def test_the_launcher_chooses_the_card_but_on_the_cpu(monkeypatch):
    monkeypatch.setenv("DEVICE_ID", "3")
    monkeypatch.delenv(ranks.ROLE, raising=False)
    assert ranks.local_device("Ascend", 5) == 5
    monkeypatch.setenv(ranks.ROLE, "MS_WORKER")
    assert ranks.local_device("Ascend", 5) == 3
    assert ranks.local_device("CPU", 0) == 0
