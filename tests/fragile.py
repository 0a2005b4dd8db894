"""What a reader in a process of its own can do wrong; tests/test_isolation.py drives it."""

import os
import signal

from pcamjax.errors import InputError


class Fragile:
    """An object whose methods misbehave."""

    def __init__(self, refused: str = ""):
        if refused:
            raise InputError(refused)

    def process(self) -> int:
        return os.getpid()

    def echo(self, *values):
        return list(values)

    def reversed(self, content: bytes) -> bytes:
        return content[::-1]

    def zeros(self, size: int) -> memoryview:
        return memoryview(bytes(size))

    def fail(self) -> None:
        raise RuntimeError("two\nlines\x1b[31m")

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def compute(self) -> None:
        while True:
            pass

    def allocate(self) -> int:
        return len(bytearray(1 << 30))
