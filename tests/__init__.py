"""The tests.  What the library logs below ERROR is for the tests that ask for it, not for the terminal.

In the background of a shell Ctrl-C is ignored, which children inherit: here it is what Python makes of it elsewhere.
"""

import logging
import signal

_handler = logging.StreamHandler()
_handler.setLevel(logging.ERROR)
logging.getLogger("sync_ws").addHandler(_handler)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
