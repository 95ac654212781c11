"""Autobahn's wstest (517 cases) against sync_ws as a server and as a client: `python -m tests.conformance`.

`autobahn` finds or installs wstest, `roles` runs it against `testee` (the echo server and the echo client
built on sync_ws), `results` compares what came out with what is pinned in `expected.json`.
"""
