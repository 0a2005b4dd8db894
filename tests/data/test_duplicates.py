"""Exact duplicates: counted within and across parts, with contradicting labels named."""

import json
from pathlib import Path

import numpy as np

from pcamjax.data.duplicates import duplicate_groups, find_duplicates
from pcamjax.data.store import Patches


def patches(images: str, parts: str, labels: list[int]) -> Patches:
    """A store in memory: equal letters of `images` are equal images; parts are r (train), v(alid), t(est)."""
    count = len(images)
    digests = np.zeros((count, 16), np.uint8)
    digests[:, 0] = [ord(letter) for letter in images]
    names = {"r": "train", "v": "valid", "t": "test"}
    return Patches(np.zeros((count, 96, 96, 3), np.uint8), np.array(labels, np.int8),
                   np.array([f"{letter}{i}" for i, letter in enumerate(images)]), np.array([""] * count),
                   np.array([names[part] for part in parts]), digests, {}, Path("memory"))


def test_repeats_are_counted_within_and_across_parts():
    report = find_duplicates(patches("aaabbcddd", "rrrrvvrtt", [1, 1, 1, 0, 0, 1, 0, 0, 1]))
    assert (report.patches, report.groups, report.repeats) == (9, 3, 5)
    assert report.within == {"train": 2, "valid": 0, "test": 1}
    assert report.across == {"train, valid": 1, "train, test": 1, "valid, test": 0}
    assert report.contradictory_groups == 1 and report.examples == [["d6", "d7", "d8"]]
    assert json.loads(json.dumps(report.to_dict()))["across"]["train, test"] == 1
    assert report.summary() == ("5 of 9 patches repeat another exactly (2 within train, 1 within test; "
                                "1 in both train, valid, 1 in both train, test); 1 groups have both labels")


def test_an_unlabelled_repeat_contradicts_nothing():
    report = find_duplicates(patches("aab", "rtr", [1, -1, 0]))
    assert report.contradictory_groups == 0 and report.examples == [["a0", "a1"]]


def test_distinct_patches_have_no_duplicates():
    report = find_duplicates(patches("abc", "rvt", [1, 0, 1]))
    assert report.repeats == 0 and report.examples == []
    assert report.summary() == "no exact duplicates among 3 patches"


def test_digests_are_told_apart_to_the_last_byte():
    digests = np.zeros((4, 16), np.uint8)
    digests[1, 15] = 1
    digests[2, 0] = 1
    groups = duplicate_groups(digests)
    assert len(set(groups.tolist())) == 3 and groups[0] == groups[3]
