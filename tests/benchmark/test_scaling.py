"""The reckoning of docs/scaling.md, by numbers that can be checked by hand."""

import subprocess
import sys
from pathlib import Path

import pytest

from src.benchmark.scaling import (
    Cluster,
    efficiency,
    exchange_seconds,
    fastest_cards,
    least_batch,
    seconds_per_image,
)

ROOT = Path(__file__).resolve().parents[2]


def test_an_image_costs_three_forwards_of_two_operations_a_mac():
    assert seconds_per_image({"macs": 100e9}, Cluster(tflops=100)) == pytest.approx(0.006)


def test_a_ring_sends_almost_twice_the_gradients():
    # 1 million parameters, 4 MB, 64 cards: 2 · 63/64 · 4 MB at 1 GB/s
    assert exchange_seconds(1_000_000, 64, 8) == pytest.approx(7.875e-3)
    assert exchange_seconds(1_000_000, 1, 8) == 0


def test_what_is_sent_beside_backward_costs_nothing_until_it_takes_longer():
    assert efficiency(3.0, 1.0, hidden=False) == 0.75
    assert efficiency(3.0, 2.0, hidden=True) == 1.0
    assert efficiency(3.0, 3.0, hidden=True) == 0.75


def test_the_batch_for_nine_tenths_is_nine_times_the_exchange():
    assert least_batch(per_image=0.1, exchange=0.2) == 18


def test_cards_are_doubled_as_long_as_it_pays():
    # Nothing is sent: every doubling halves the step, down to an image a card
    assert fastest_cards(1.0, 0, 8, batch=64) == 64
    # 64 s alone; two cards 32 + 1 s of exchange, four 16 + 1.5, eight 8 + 1.75, 16: 4 + 1.875,
    # 32: 2 + 1.94 and 64: 1 + 1.97, three quarters of the step before
    assert fastest_cards(1.0, 250_000_000, 8, batch=64) == 16


def test_the_document_holds_what_the_script_prints():
    record = ROOT / "experiments" / "results"
    files = [str(record / f"scaling_{name}.json") for name in ("vgg16", "resnet50")]
    command = [sys.executable, "-m", "src.benchmark.scaling", *files]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    document = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    for table in printed.strip().split("\n\n"):
        assert table in document
