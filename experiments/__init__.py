"""The jobs: python -m experiments.<job>."""

import contextlib
import os
import sys

from pcamjax import host_memory

_STARTED = {"PCAMJAX_STARTED": "1"}  # a system may take the other variable away

# Started anew while `python -m` looks for a job, before anything large is loaded: glibc reads its variable only as a
# process begins.
if sys.argv[0] == "-m" and sys.executable and not _STARTED.items() <= os.environ.items() and (
        variables := host_memory.environment()):
    with contextlib.suppress(OSError):  # then as it is
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | variables | _STARTED)
