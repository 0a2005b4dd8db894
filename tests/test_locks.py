"""A lock keeps two processes apart, names its holder, and dies with it."""

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from pcamjax.errors import InputError
from pcamjax.locks import locked

HOLD = """import sys, time
from pcamjax.locks import locked
with locked(sys.argv[1], "sleep"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_one_is_refused_and_told_who_is_there(tmp_path):
    with locked(tmp_path / ".lock", "training"):
        with pytest.raises(InputError, match=re.escape(f"{tmp_path}: process {os.getpid()} on {socket.gethostname()} "
                                                       "(training since ") + ".*; wait for its end, or choose"):
            with locked(tmp_path / ".lock", "training"):
                pass
        assert (tmp_path / ".lock").exists()
    with locked(tmp_path / ".lock", "training"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [None, InputError("refused"), KeyboardInterrupt()])
def test_a_folder_that_was_made_for_it_goes_if_nothing_came_of_it(tmp_path, error):
    for folder, name, there in ((tmp_path / "new", None, False), (tmp_path / "used", "file", True)):
        try:
            with locked(folder / ".lock", "training"):
                if name:
                    (folder / name).write_text("")
                if error:
                    raise error
        except type(error):
            pass
        assert folder.exists() == there and not list(folder.glob(".lock"))
    (tmp_path / "mine").mkdir()
    with locked(tmp_path / "mine" / ".lock", "training"):
        pass
    assert (tmp_path / "mine").exists()


def test_a_killed_process_holds_nothing(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / ".lock")], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match=f"process {holder.pid} on .* .sleep since"), locked(tmp_path / ".lock", "a"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path / ".lock", "training"):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()


def test_a_lock_on_a_file_that_its_holder_has_just_removed_is_none(tmp_path, monkeypatch):
    flock, removed = fcntl.flock, []

    def too_late(file, operation):
        if not removed:
            (tmp_path / ".lock").unlink()
            removed.append(True)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", too_late)
    with locked(tmp_path / ".lock", "training"):
        assert (tmp_path / ".lock").exists()
        with pytest.raises(InputError, match="at work there"), locked(tmp_path / ".lock", "training"):
            pass


def test_a_file_system_without_locks_is_told_and_worked_on(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path / ".lock", "training"), locked(tmp_path / ".lock", "training"):
        pass
    assert capsys.readouterr().err == (f"warning: {tmp_path}: its file system has no locks (No locks available); make "
                                       "sure that no other job works there\n") * 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/.lock: cannot be written .*; free space or choose another folder"):
        with locked(tmp_path / "file" / ".lock", "training"):
            pass
