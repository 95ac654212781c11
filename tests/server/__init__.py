"""Tests of ``sync_ws.server``."""
