"""The tests.  What the library logs below ERROR is for the tests that ask for it, not for the terminal."""

import logging

_handler = logging.StreamHandler()
_handler.setLevel(logging.ERROR)
logging.getLogger("sync_ws").addHandler(_handler)
