"""The place of a process among others; what needs real ranks is in tests/integration."""

import mindspore as ms
import numpy as np
import pytest

from src.device import process_group
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
    alone = process_group.this_process()
    assert alone.is_main_process and alone.world_size == 1
    assert ProcessGroup().gather({"a": 1}) == [{"a": 1}]
    assert process_group.share_of_cores() is None


def test_values_of_different_lengths_come_in_the_order_of_the_process_group():
    wire = Wire(b'"\xc3\xa4 long text of rank 0"', b"[2.5, NaN]")
    first, own, last = wire.gather(0.1)
    assert (first, own, last[0]) == ("ä long text of rank 0", 0.1, 2.5)
    assert not wire.is_main_process


def join(monkeypatch, places, target="Ascend"):
    """Joins rank 1 of those at `places`, each (host, cores); returns what was asked for."""
    asked = []

    class Group(ProcessGroup):
        def gather(self, value):
            assert value == places[1]
            return places

    monkeypatch.setattr(process_group, "ProcessGroup", Group)
    monkeypatch.setattr(process_group, "_process_group", process_group.this_process())
    monkeypatch.setattr(process_group, "choose_device", lambda *device: asked.append(device))
    monkeypatch.setattr(process_group.signal, "signal", lambda *_: None)
    monkeypatch.setattr(ms.communication, "init", lambda: asked.append("init"))
    monkeypatch.setattr(ms.communication, "get_rank", lambda: 1)
    monkeypatch.setattr(ms.communication, "get_group_size", lambda: len(places))
    monkeypatch.setattr(process_group.socket, "gethostname", lambda: places[1][0])
    monkeypatch.setattr(process_group, "own_cores", lambda: places[1][1])
    monkeypatch.setattr(process_group, "available_cores", lambda: len(places[1][1]))
    process_group.join(target)
    return asked


ALL = list(range(16))


@pytest.mark.parametrize(
    ("places", "share"),
    [
        ([["a", ALL], ["a", ALL], ["b", ALL], ["b", ALL]], 8),  # two on a machine share its cores
        ([["a", ALL[:8]], ["a", ALL[8:]]], 8),  # bound by msrun --bind_core: divided already
        ([["a", ALL[:8]], ["a", ALL[8:]], ["a", ALL[8:]]], 4),
        ([["a", ALL], ["b", ALL]], None),
    ],
)
def test_cores_are_divided_among_the_ranks_that_may_run_on_them(places, share, monkeypatch):
    monkeypatch.setenv(process_group.ROLE, "MS_WORKER")
    join(monkeypatch, places)
    assert process_group.share_of_cores() == share


def test_a_rank_table_is_a_launcher_too(monkeypatch):
    monkeypatch.delenv(process_group.ROLE, raising=False)
    monkeypatch.setenv("RANK_TABLE_FILE", "table.json")
    assert not process_group.is_launched()  # as platforms set it for a card alone
    monkeypatch.setenv("RANK_SIZE", "2")
    places = [["a", ALL], ["a", ALL]]
    with pytest.raises(UserError, match="^RANK_ID=: expected a number beside RANK_TABLE_FILE"):
        join(monkeypatch, places)
    monkeypatch.setenv("RANK_ID", "1")
    with pytest.raises(UserError, match="^DEVICE_ID="):
        join(monkeypatch, places)
    monkeypatch.setenv("DEVICE_ID", "5")
    assert join(monkeypatch, places) == [("Ascend", 5), "init"]
    with pytest.raises(UserError, match="device.target=CPU: a rank table"):
        join(monkeypatch, places, "CPU")


def test_joining_without_a_launcher_says_how_to_start_one(monkeypatch):
    monkeypatch.delenv(process_group.ROLE, raising=False)
    with pytest.raises(UserError, match="python -m src.distributed 2 train"):
        process_group.join("CPU")


def test_the_launcher_chooses_the_card_but_on_the_cpu(monkeypatch):
    monkeypatch.setenv("DEVICE_ID", "3")
    monkeypatch.delenv(process_group.ROLE, raising=False)
    assert process_group.local_device("Ascend", 5) == 5
    monkeypatch.setenv(process_group.ROLE, "MS_WORKER")
    assert process_group.local_device("Ascend", 5) == 3
    assert process_group.local_device("CPU", 0) == 0
