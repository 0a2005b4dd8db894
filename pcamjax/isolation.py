"""Readers of files from outside whose C libraries may fall over, in processes of their own with limits.

A server without threads, started once, forks such a process for every file, which takes milliseconds. Only JSON and
bytes come back, never pickle, and no more than was asked for.
"""

import atexit
import contextlib
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from signal import SIG_IGN, SIGCHLD, signal
from typing import Any

from pcamjax.errors import InputError, one_line

SECONDS = 30  # of computing an answer may take, and as many for each GiB that is to be read
MEMORY = 4 << 30  # bytes of address space, and as many for each GiB
LARGEST_ANSWER = 64 << 20  # bytes of JSON
_HEADER = struct.Struct("!cQ")
_VALUE, _BYTES, _REFUSED, _FAILED = b"v", b"b", b"r", b"f"


class UnreadableError(Exception):
    """A library could not read a file, or did not live through it; the message is one line and names no file."""


class Isolated:
    """An object in a process of its own, until it is closed; a `with` statement does that.

    `target` is "module:class", or a function that makes the object, called with `arguments` that JSON can hold. Its
    methods take such arguments, and then bytes where `payload` is given, and return JSON values or a buffer. `size` is
    the bytes that it has to hold at once, where they may be many: its limits grow with them.

    Raises, as all its methods:
      InputError: the object refuses its input; the message is its own.
      UnreadableError: it met with any other error, crashed or went over its limits.
    """

    def __init__(self, target: str, *arguments: Any, size: int = 0):
        module, _, name = target.partition(":")
        self._seconds, self._memory = (round(limit * (1 + size / 2**30)) for limit in (SECONDS, MEMORY))
        self._socket = _server(module).connect()
        try:
            with contextlib.suppress(OSError):  # then nobody will answer, which `call` says
                _send(self._socket, _VALUE, json.dumps([self._seconds, self._memory]).encode())
            self.call(name, *arguments)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Isolated":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, *arguments: Any, payload: bytes = b"") -> Any:
        """The value that a method returns."""
        return json.loads(self._ask(_VALUE, LARGEST_ANSWER, method, arguments, payload))

    def read(self, method: str, *arguments: Any, size: int, payload: bytes = b"") -> bytearray:
        """The bytes that a method returns, which must be `size`."""
        answer = self._ask(_BYTES, size, method, arguments, payload)
        if len(answer) != size:
            raise UnreadableError(f"{len(answer)} bytes of {size} were there")
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._socket.close()

    def _ask(self, expected: bytes, largest: int, method: str, arguments: tuple, payload: bytes) -> bytearray:
        try:
            _send(self._socket, _VALUE, json.dumps([method, *arguments]).encode())
            _send(self._socket, _BYTES, payload)
            kind, answer = _receive(self._socket, max(largest, 4096))
        except (OSError, EOFError):
            raise UnreadableError(f"its reader crashed, or went over the limits of {self._seconds} s of computing and "
                                  f"{self._memory / 2**30:.1f} GiB of memory for a step") from None
        if kind == _REFUSED:
            raise InputError(answer.decode(errors="replace"))
        if kind != expected:
            raise UnreadableError(answer.decode(errors="replace"))
        return answer


class _Server:
    """The process that forks readers, with one module imported."""

    def __init__(self, module: str):
        self._socket, theirs = socket.socketpair()
        # One thread: a process with several cannot be forked safely. Plugins of HDF5 are code from outside.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1",
                                    "OMP_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
        code = f"from pcamjax.isolation import serve; serve({module!r}, {theirs.fileno()})"
        with theirs:
            # A session of its own: Ctrl-C is for the job, which then ends the server.
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, env=environment, pass_fds=[theirs.fileno()], start_new_session=True)
        atexit.register(self.close)

    def connect(self) -> socket.socket:
        """A line to a new process."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._socket, [b"f"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise UnreadableError("the process that starts readers has ended; start the job again") from None
        return ours

    def close(self) -> None:
        """Ends it, and lets the readers end that are still at work."""
        self._socket.close()
        self._process.wait()


_SERVERS: dict[str, _Server] = {}
_STARTING = threading.Lock()


def _server(module: str) -> _Server:
    with _STARTING:
        if module not in _SERVERS:
            _SERVERS[module] = _Server(module)
        return _SERVERS[module]


def serve(module: str, fileno: int) -> None:
    """The life of a server: a process for each line that comes, until the job is gone."""
    signal(SIGCHLD, SIG_IGN)  # nobody asks how a reader ended: its line is cut
    made = vars(import_module(module))
    lines = socket.socket(fileno=fileno)
    while True:
        message, descriptors, _, _ = socket.recv_fds(lines, 1, 1)
        if not message:
            return
        with socket.socket(fileno=descriptors[0]) as line:
            if not os.fork():
                lines.close()
                with contextlib.suppress(OSError, EOFError):
                    _answer(line, made)
                os._exit(0)


def _answer(line: socket.socket, made: dict[str, Callable]) -> None:
    """The life of a reader: first the object is made, then its methods are called."""
    seconds, memory = json.loads(_receive(line, 100)[1])
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, memory)
    subject = None
    while True:
        request, payload = (_receive(line, 1 << 40)[1] for _ in range(2))
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + seconds)
        method, *arguments = json.loads(request)
        arguments += [bytes(payload)] if payload else []
        try:
            if subject is None:
                subject, value = made[method](*arguments), None
            else:
                value = getattr(subject, method)(*arguments)
            kind, answer = _VALUE, value
            if isinstance(value, bytes | memoryview):
                kind = _BYTES
            else:
                answer = json.dumps(value).encode()
        except InputError as error:
            kind, answer = _REFUSED, one_line(error)[:300].encode(errors="replace")
        except MemoryError:
            kind, answer = _FAILED, f"it takes more than {memory / 2**30:.1f} GiB of memory".encode()
        # Whatever a library says to a file that is not as it should be, there is no class for it.
        except Exception as error:
            kind, answer = _FAILED, one_line(error)[:300].encode(errors="replace")
        _send(line, kind, answer)


def _limit(what: int, value: int) -> None:
    """Sets a soft limit, as far as the hard one allows; only Linux heeds all of them."""
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _send(line: socket.socket, kind: bytes, content: Any) -> None:
    content = memoryview(content).cast("B")
    line.sendall(_HEADER.pack(kind, len(content)))
    line.sendall(content)


def _receive(line: socket.socket, largest: int) -> tuple[bytes, bytearray]:
    kind, size = _HEADER.unpack(_exactly(line, _HEADER.size))
    if size > largest:
        raise EOFError
    return kind, _exactly(line, size)


def _exactly(line: socket.socket, size: int) -> bytearray:
    content, done = bytearray(size), 0
    with memoryview(content) as view:
        while done < size:
            got = line.recv_into(view[done:])
            if not got:
                raise EOFError
            done += got
    return content
