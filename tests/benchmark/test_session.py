"""Subjects in processes of their own: turns, times, memory, and those that cannot be measured."""

from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from pcamjax import host_memory
from pcamjax.benchmark import session, subjects
from pcamjax.benchmark.material import Case
from pcamjax.benchmark.session import Entrant, Session, baseline, ratios
from pcamjax.benchmark.subjects import Subject

TRAIN, INFER = Case("train"), Case("infer")
HERE = str(Path(__file__).parent)


@pytest.fixture(scope="module")
def begun():
    with Session() as begun:
        yield begun


@pytest.fixture
def measure(begun, monkeypatch):
    """Measures fakes, given as name = their options."""
    def measure(case=TRAIN, rounds=2, times=1, environment=None, **fakes):
        for name, options in fakes.items():
            found = Subject("fake_subject", ("train", "infer"), {"PYTHONPATH": HERE} | (environment or {}), options)
            monkeypatch.setitem(subjects.SUBJECTS, name, found)
        return begun.measure([Entrant(name, case) for name in fakes], rounds=rounds, times=times)

    return measure


def test_turns_alternate_and_only_times_after_a_turns_first_count(measure, tmp_path):
    log = tmp_path / "log"
    a, b = measure(rounds=3, times=2, a={"name": "a", "log": str(log)}, b={"name": "b", "log": str(log)})
    turns = [(name, len(list(times))) for name, times in groupby(log.read_text().split())]
    # Twice each to begin with; then 3 times a turn, of which 2 are counted: a b, b a, a b.
    assert turns == [("a", 2), ("b", 2), ("a", 3), ("b", 6), ("a", 6), ("b", 3)]
    assert [len(times) for times in a.rounds + b.rounds] == [2] * 6 and not a.reason + b.reason


def test_seconds_are_those_of_the_work(measure):
    slow, fast = measure(rounds=2, times=3, slow={"seconds": 0.06}, fast={"seconds": 0.03})
    assert 0.06 <= slow.seconds < 0.09 and 0.03 <= fast.seconds < 0.06
    ratio, each = ratios(slow, fast)
    assert ratio == slow.seconds / fast.seconds and len(each) == 2 and 1.3 < min(each)
    assert 0.06 <= slow.facts["first_seconds"] < 0.2


def test_what_dies_is_told_and_the_others_go_on(measure):
    dead, late, alive = measure(dead={"dies_at": 1}, late={"dies_at": 4}, alive={})
    assert dead.reason == late.reason == "MemoryError: no memory is left"
    assert alive.reason == "" and len(alive.rounds) == 2
    assert dead.seconds != dead.seconds


def test_a_framework_that_is_not_there_is_told(begun, monkeypatch):
    monkeypatch.setitem(subjects.SUBJECTS, "none", Subject("no_such_framework", ("train",)))
    (none,) = begun.measure([Entrant("none", TRAIN)], rounds=1, times=1)
    assert none.reason == "ModuleNotFoundError: No module named 'no_such_framework'"


def test_material_that_cannot_be_made_is_told(begun, measure, monkeypatch):
    (made,) = measure(replace(TRAIN, network="mobilenet_000"), a={})
    assert "network 'mobilenet_000' is not known" in made.reason


def test_other_logits_than_the_firsts_are_refused(measure):
    first, same, other = measure(INFER, first={}, same={"logits": (1e-4, 1.0)}, other={"logits": (0.01, 1.0)})
    assert not first.reason and not same.reason
    assert other.reason == "its logits are 0.01 of the largest away from the first subject's"


def test_alone_no_two_are_there_at_a_time(measure, begun, monkeypatch, tmp_path):
    monkeypatch.setattr(begun, "_alone", True)
    log = tmp_path / "log"
    measure(rounds=2, a={"name": "a", "log": str(log)}, b={"name": "b", "log": str(log)})
    assert "".join(log.read_text().split()) == "aaaaaa" + "bbbbbb"


def test_each_has_its_environment_and_ours_its_devices(measure, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.delenv(host_memory.TUNABLES, raising=False)
    seen = []
    popen = session.subprocess.Popen
    monkeypatch.setattr(session.subprocess, "Popen", lambda *args, **options: (
        seen.append(options["env"]), popen(*args, **options))[1])
    (made,) = measure(replace(TRAIN, devices=3), environment={"FAKE_THREADS": "7"}, a={})
    assert made.facts["threads"] == "7"
    assert seen[-1]["XLA_FLAGS"] == "--xla_force_host_platform_device_count=3"
    assert host_memory.environment().items() <= seen[-1].items()


def test_of_several_steps_the_time_of_one_is_told(measure):
    one, ten = measure(one={"seconds": 0.1}, ten={"seconds": 0.1, "steps": 10})
    assert 0.01 <= ten.seconds < 0.1 <= one.seconds


def test_the_baseline_is_ours_on_one_device(measure):
    case = Case("train", "mobilenet", batch_size=8)
    made = {(subject, devices): session.Measurement(Entrant(subject, replace(case, devices=devices)))
            for subject, devices in (("torch", 1), ("pcamjax", 2), ("pcamjax", 1))}
    other = session.Measurement(Entrant("pcamjax", replace(case, batch_size=16)))
    several = session.Measurement(Entrant("pcamjax", replace(case, steps_per_dispatch=4)))
    every = [several, other, *made.values()]
    assert baseline(several, every) is made["pcamjax", 1]
    assert baseline(made["torch", 1], every) is baseline(made["pcamjax", 2], every) is made["pcamjax", 1]
    assert baseline(made["pcamjax", 1], every) is baseline(other, every) is None
