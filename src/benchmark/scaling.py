"""What a training on many cards needs: `python -m src.benchmark.scaling FILE.json …`.

Estimated from measurements of `python -m src.benchmark` (parameters and multiply-accumulates, the
time to decode and augment an image) and from assumed rates of a card and its links, which can be
given. Prints the tables of docs/scaling.md.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.utils.files import read_json

GRADIENT_BYTES = 4  # a parameter's gradient is sent as float32
BACKWARD = 2 / 3  # of a step's arithmetic; sending can hide behind it


@dataclass(frozen=True)
class Cluster:
    """Assumed cards, links and data."""

    cards: int = 64
    tflops: float = 100  # that a card sustains in half precision
    links: tuple[float, ...] = (200, 100, 25)  # Gbit/s a card and direction
    batch: int = 4  # images a card and step
    image_kb: float = 160  # of a JPEG and its label; COCO's 118,287 images are 18 GB
    images: int = 118_287  # of an epoch


def seconds_per_image(model: dict[str, Any], cluster: Cluster) -> float:
    """Forward and backward of one image on a card: three times the forward's arithmetic."""
    return 6 * model["macs"] / (1e12 * cluster.tflops)


def exchange_seconds(parameters: int, cards: int, gbit: float) -> float:
    """A ring all-reduce of the gradients: each card sends 2 (n - 1) / n of them."""
    return 2 * (cards - 1) / cards * GRADIENT_BYTES * parameters / (1e9 * gbit / 8)


def efficiency(compute: float, exchange: float, hidden: bool) -> float:
    """Share of a step that is spent on arithmetic.

    Args:
        compute, exchange: Seconds of a step.
        hidden: The exchange runs beside backward, from its first gradient on.
    """
    waited = max(0.0, exchange - BACKWARD * compute) if hidden else exchange
    return compute / (compute + waited)


def least_batch(per_image: float, exchange: float, wanted: float = 0.9) -> int:
    """Images a card and step from which on `wanted` of a step is arithmetic, nothing hidden."""
    return math.ceil(round(exchange * wanted / (1 - wanted) / per_image, 6))


def fastest_cards(per_image: float, parameters: int, gbit: float, batch: int) -> int:
    """Cards up to which each doubling makes a step of `batch` images at least 1.5 times faster."""

    def step(cards: int) -> float:
        return batch / cards * per_image + exchange_seconds(parameters, cards, gbit)

    cards = 1
    while 2 * cards <= batch and step(cards) >= 1.5 * step(2 * cards):
        cards *= 2
    return cards


def demand_table(models: Sequence[dict[str, Any]], decode: float, cluster: Cluster) -> str:
    """Images, bytes and cores a second that keep the cards busy."""
    rows = [
        "| network | images/s a card | images/s in all | from storage | decoding cores a card |"
        " an epoch |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for model in models:
        rate = 1 / seconds_per_image(model, cluster)
        total = rate * cluster.cards
        rows.append(
            f"| {model['parameters'] / 1e6:.1f} M, {model['macs'] / 1e9:.0f} GMAC | {rate:.0f} | "
            f"{total:,.0f} | {total * cluster.image_kb / 1e6:.2f} GB/s | {rate * decode:.1f} | "
            f"{cluster.images / total:.0f} s |"
        )
    return "\n".join(rows)


def exchange_table(models: Sequence[dict[str, Any]], cluster: Cluster) -> str:
    """The effect of the links on a step, and where more cards no longer help."""
    rows = [
        "| network, gradients | link a card | arithmetic | exchange | efficiency, hidden |"
        " batch a card for 90 % | cards at 64 images a step |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model in models:
        parameters, each = model["parameters"], seconds_per_image(model, cluster)
        compute = cluster.batch * each
        for gbit in cluster.links:
            exchange = exchange_seconds(parameters, cluster.cards, gbit)
            plain, hidden = (efficiency(compute, exchange, way) for way in (False, True))
            rows.append(
                f"| {parameters / 1e6:.1f} M, {GRADIENT_BYTES * parameters / 1e6:.0f} MB | "
                f"{gbit:g} Gbit/s | {1e3 * compute:.1f} ms | {1e3 * exchange:.1f} ms | "
                f"{plain:.0%}, {hidden:.0%} | {least_batch(each, exchange)} | "
                f"{fastest_cards(each, parameters, gbit, 64)} |"
            )
    return "\n".join(rows)


def main() -> None:
    """Reads benchmark files, one of which has measured the data, and prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m src.benchmark.scaling", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="JSON files of python -m src.benchmark")
    plain = Cluster()
    for name in ("cards", "tflops", "batch", "image_kb", "images"):
        value = getattr(plain, name)
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--links", type=float, nargs="+", default=plain.links)
    given = vars(parser.parse_args())
    measured = [read_json(path) for path in given.pop("files")]
    data = next((result["data"] for result in measured if "data" in result), None)
    models = [result["model"] for result in measured if "model" in result]
    if data is None or not models:
        parser.error("no file has measured both: python -m src.benchmark 'only=[model,data]'")
    cluster = Cluster(**given | {"links": tuple(given["links"])})
    print(demand_table(models, 1 / data["images_per_second"], cluster), end="\n\n")
    print(exchange_table(models, cluster))


if __name__ == "__main__":
    main()
