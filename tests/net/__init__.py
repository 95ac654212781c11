"""Tests of ``sync_ws.net``."""
