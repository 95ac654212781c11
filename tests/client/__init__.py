"""Tests of ``sync_ws.client``."""
