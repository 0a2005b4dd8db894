"""Rows, tables and figure from measurements made by hand."""

import csv
import json
from dataclasses import replace

import pytest
from PIL import Image

from pcamjax.benchmark.material import Case
from pcamjax.benchmark.results import markdown, rows_of, write
from pcamjax.benchmark.session import Entrant, Measurement

TRAIN = Case("train", "mobilenet", batch_size=10)
GROUP = "mobilenet train"


def measurement(subject, case, rounds, mebibytes=100, **facts):
    return Measurement(Entrant(subject, case), rounds, facts, mebibytes * 2**20)


def made() -> list[Measurement]:
    """Ours 2 s, torch 3 s and 2.5 times in a round, two devices 4 s, and what stands beside them."""
    return [
        measurement("pcamjax", TRAIN, [[2.0, 2.0], [2.0, 2.0]], 300, flops=8e9, bytes=4e9, compile_seconds=5.0),
        measurement("torch", TRAIN, [[3.0, 3.0], [2.5, 5.0]], 200),
        measurement("keras_jax", TRAIN, [[9.0, 9.0], [9.0, 9.0]], 150),
        Measurement(Entrant("keras_tensorflow", TRAIN), reason="no such thing"),
        measurement("pcamjax", replace(TRAIN, devices=2), [[4.0, 4.0], [4.0, 4.0]], 310, flops=8e9, bytes=4e9),
        measurement("torch", Case("product"), [[1.0]], flops=5e9),
        measurement("machine", Case("product"), [[1.0]], flops=16e9),
        measurement("machine", Case("bandwidth"), [[1.0]], bytes=10e9),
        measurement("pcamjax", Case("augment", batch_size=10), [[0.1]], flops=1e9, bytes=1e9),
        measurement("pcamjax", Case("input", batch_size=10), [[0.5]], images=200)]


def rows():
    return {(row["subject"], row["task"], row["devices"]): row for row in rows_of(GROUP, made())}


def test_ratios_are_to_ours_on_one_device():
    found = rows()
    ours, torch = found["pcamjax", "train", 1], found["torch", "train", 1]
    assert "ratio" not in ours and ours["images_per_second"] == 5
    assert (torch["ratio"], torch["ratio_least"], torch["ratio_most"]) == (1.5, 1.5, 1.875)
    assert found["pcamjax", "train", 2]["ratio"] == 2
    assert found["keras_tensorflow", "train", 1]["reason"] == "no such thing"
    assert "seconds" not in found["keras_tensorflow", "train", 1]


def test_shares_are_of_the_best_product_and_of_the_bandwidth():
    found = rows()
    ours, torch = found["pcamjax", "train", 1], found["torch", "train", 1]
    assert ours["flop_per_second"] == 4e9 and ours["share_of_product"] == 0.25
    assert ours["bytes_per_second"] == 2e9 and ours["share_of_bandwidth"] == 0.2
    assert torch["share_of_product"] == pytest.approx(8 / 3 / 16) and "share_of_bandwidth" not in torch
    assert found["torch", "product", 1]["share_of_product"] == pytest.approx(5 / 16)


def test_precisions_have_products_of_their_own():
    half = replace(TRAIN, precision="bfloat16")
    low = [measurement("pcamjax", half, [[2.0]], flops=8e9), measurement("torch", Case("product", precision="bfloat16"),
                                                                         [[1.0]], flops=64e9)]
    row = next(row for row in rows_of(GROUP, made() + low) if row["precision"] == "bfloat16")
    assert row["share_of_product"] == 4 / 64


def test_tables():
    duels, feeding, everything = markdown(rows_of(GROUP, made())).split("\n\n")
    assert duels.splitlines()[2:] == [
        "| train | mobilenet | 10 | thesis | float32 | 2000.0 | torch | 3000.0 | 1.50 (1.50 to 1.88) | 300 | keras_jax "
        "| 150 | 2.00 |"]
    assert feeding.splitlines()[2:] == [
        "| augment | train | mobilenet | 10 | thesis | float32 | 100.00 | 100 | 5.0% |",
        "| input | train | mobilenet | 10 | thesis | float32 | 25.00 | 400 | 1.2% |"]
    lines = everything.splitlines()
    assert len(lines) == 2 + 10 and {line.count("|") for line in lines} == {lines[0].count("|")}
    assert "| not measured: no such thing |" in everything


def test_files(tmp_path):
    write(tmp_path, {"steps": 2}, [])
    assert {file.name for file in tmp_path.iterdir()} == {"benchmark.json", "benchmark.csv", "benchmark.md"}
    found = rows_of(GROUP, made())
    write(tmp_path, {"steps": 2}, found)
    whole = json.loads((tmp_path / "benchmark.json").read_text())
    assert whole["steps"] == 2 and whole["rows"][1]["rounds"] == [[3.0, 3.0], [2.5, 5.0]]
    with open(tmp_path / "benchmark.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["ratio"] for row in table[:3]] == ["", "1.5", "4.5"]
    assert (tmp_path / "benchmark.md").read_text() == markdown(found)
    with Image.open(tmp_path / "roofline.png") as picture:
        assert picture.width > 300
    drawn = (tmp_path / "roofline.svg").read_bytes()
    write(tmp_path, {}, found)
    assert (tmp_path / "roofline.svg").read_bytes() == drawn
    assert len(list(tmp_path.iterdir())) == 5
