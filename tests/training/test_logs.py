"""What a run logs: metrics.jsonl and TensorBoard's events say the same, and a resumed run takes back what it lost."""

import json
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from pcamjax.errors import InputError
from pcamjax.training.logs import EpochLog
from pcamjax.training.run import RunFolder


def epoch(number: int, **values) -> dict:
    return {"epoch": number, "step": 6 * number, "train_loss": 1 / number, "valid_auc": 0.5 + number / 10, **values}


def events(folder: RunFolder) -> list[Event]:
    """The records of all event files, in order: length, its checksum, data, its checksum (TFRecord)."""
    found = []
    for file in sorted(folder.tensorboard.iterdir(), key=lambda file: file.stat().st_mtime_ns):
        data, place = file.read_bytes(), 0
        while place < len(data):
            length = struct.unpack_from("<Q", data, place)[0]
            found.append(Event.FromString(data[place + 12:place + 12 + length]))
            place += 16 + length
    return found


def scalars(folder: RunFolder) -> dict[int, dict[str, float]]:
    """Step -> name -> value as TensorBoard shows them: a start event purges what came at its step or later."""
    shown: dict[int, dict[str, float]] = {}
    for event in events(folder):
        if event.HasField("session_log"):
            shown = {step: values for step, values in shown.items() if step < event.step}
        for value in event.summary.value:
            shown.setdefault(event.step, {})[value.tag] = value.simple_value
    return shown


def lines(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


def assert_same(folder: RunFolder, epochs: list[dict]) -> None:
    assert lines(folder) == epochs
    assert scalars(folder) == {line["step"]: {name: pytest.approx(value) for name, value in line.items()
                                              if name not in ("epoch", "step")} for line in epochs}


def test_both_logs_hold_every_epoch(tmp_path):
    folder = RunFolder(tmp_path)
    log = EpochLog(folder, [])
    for number in (1, 2):
        log.append(epoch(number))
        assert_same(folder, [epoch(i) for i in range(1, number + 1)])  # on disk at once, should the run be killed
    log.close()
    assert log.epochs == [epoch(1), epoch(2)]
    assert events(folder)[0].file_version == "brain.Event:2"


def test_a_resumed_run_takes_back_what_came_after_its_checkpoint(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    killed = EpochLog(folder, [])
    for number in (1, 2, 3):
        killed.append(epoch(number))
    killed.close()  # adds nothing
    monkeypatch.setattr("time.time", lambda: 4e9)  # event files are named by the second
    resumed = EpochLog(folder, [epoch(1)])
    assert lines(folder) == [epoch(1)]
    resumed.append(epoch(2, train_loss=0.25))
    resumed.close()
    assert_same(folder, [epoch(1), epoch(2, train_loss=0.25)])


def test_nothing_new_makes_no_event_file(tmp_path):
    EpochLog(RunFolder(tmp_path), [epoch(1)]).close()
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_full_disk_is_one_clear_line(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")
    log = EpochLog(RunFolder(tmp_path), [])
    with monkeypatch.context() as patch:
        patch.setattr("tensorboardX.event_file_writer.EventsWriter.flush", full)
        with pytest.raises(InputError, match="tensorboard: cannot be written .No space left on device.; free space"):
            log.append(epoch(1))
    log.close()
