"""Tests of ``sync_ws.channel``."""
