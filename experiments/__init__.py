"""The jobs: python -m experiments.<job>."""

import os
import sys

from pcamjax import host_memory

# Started anew while `python -m` looks for a job, before anything large is loaded: glibc reads its variable only as a
# process begins.
if sys.argv[0] == "-m" and host_memory.TUNABLES not in os.environ and (variables := host_memory.environment()):
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | variables)
