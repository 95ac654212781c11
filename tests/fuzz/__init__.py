"""Input that nobody would write by hand: `python -m tests.fuzz --seconds 60`.

`frames`: the same bytes to sync_ws and to `websockets`, which have to agree. `requests`: bytes at a server's port.
`model`: a stateful model of server, registry and clients. A fixed seed makes runs repeatable.
"""
