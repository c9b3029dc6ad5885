"""Tests; the folders are those of `src`, and `integration` runs whole commands."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
