"""The order of an epoch, and the threads that make its samples ahead."""

import threading

import pytest

from src.data.loader import AHEAD, EpochSampler, Prefetched

SIZE, WORKERS = 40, 2


class Samples:
    """Samples that are their keys, and note which were made."""

    def __init__(self, broken=(), meet=lambda: None):
        self.made, self.broken, self.meet = [], broken, meet

    def __len__(self):
        return SIZE

    def __getitem__(self, key):
        self.made.append(key)
        self.meet()
        if key in self.broken:
            raise ValueError(f"no sample {key}")
        return key


def prefetched(**options):
    samples, sampler = Samples(**options), EpochSampler(SIZE, seed=3)
    return samples, sampler, Prefetched(samples, sampler, WORKERS)


def test_the_sampler_takes_each_image_once_an_epoch_in_another_order():
    sampler = EpochSampler(5, seed=3)
    first, second = list(sampler), list(sampler)
    assert sorted(key % 5 for key in first) == sorted(key % 5 for key in second) == [0, 1, 2, 3, 4]
    assert {key // 5 for key in first} == {1} and {key // 5 for key in second} == {2}
    assert [key % 5 for key in first] != [key % 5 for key in second]


def test_ranks_share_the_keys_of_one_process():
    whole = list(EpochSampler(7, seed=3))
    shares = [list(EpochSampler(7, 3, batch=1, rank=rank, world_size=3)) for rank in range(3)]
    assert shares == [[whole[0], whole[3]], [whole[1], whole[4]], [whole[2], whole[5]]]
    pairs = [list(EpochSampler(7, 3, batch=2, rank=rank, world_size=2)) for rank in range(2)]
    assert pairs == [whole[:2], whole[2:4]]  # three are left: less than a batch of both


def test_epochs_come_in_their_order_and_each_sample_is_made_once():
    samples, sampler, rows = prefetched()
    keys = sampler.keys(1) + sampler.keys(2)
    assert [rows[key] for key in keys] == keys
    assert sorted(samples.made) == sorted(keys)


def test_as_many_samples_are_made_at_a_time_as_there_are_workers():
    meeting = threading.Barrier(WORKERS, timeout=20)  # breaks when a worker is alone
    _, sampler, rows = prefetched(meet=meeting.wait)
    assert [rows[key] for key in sampler.keys(1)] == sampler.keys(1)


def test_only_so_many_samples_wait_to_be_taken():
    samples, sampler, rows = prefetched()
    rows[sampler.keys(1)[0]]
    del rows  # its threads end with what was asked for
    assert set(samples.made) <= set(sampler.keys(1)[: AHEAD * WORKERS + 1])


def test_an_epoch_may_be_entered_and_left_in_its_midst():
    _, sampler, rows = prefetched()
    taken = sampler.keys(3)[17:25] + sampler.keys(4)[:5] + sampler.keys(5)
    assert [rows[key] for key in taken] == taken


def test_a_broken_sample_fails_at_its_own_turn():
    keys = EpochSampler(SIZE, seed=3).keys(1)
    _, _, rows = prefetched(broken={keys[5]})
    assert [rows[key] for key in keys[:5]] == keys[:5]
    with pytest.raises(ValueError, match=f"no sample {keys[5]}$"):
        rows[keys[5]]
    assert rows[keys[6]] == keys[6]
