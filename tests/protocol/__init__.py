"""Tests of ``sync_ws.protocol``."""
