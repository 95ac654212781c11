"""Tests of ``sync_ws.testing``."""
