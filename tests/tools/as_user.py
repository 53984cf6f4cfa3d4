"""Run Python as a user at a terminal would.

    python as_user.py SCRIPT ...

Prepares this process, and then becomes the other. ``preexec_fn`` would do it
in a fork of the process of the tests, threads of libraries and all.
"""

import ctypes
import os
import signal
import sys

# where the tests run in the background, it may be ignored
signal.signal(signal.SIGINT, signal.SIG_DFL)
# the super-user may read what is forbidden
_drop_capability, _override, _read_search = 24, 1, 2  # of Linux
for _capability in (_override, _read_search):
    ctypes.CDLL(None).prctl(_drop_capability, _capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
