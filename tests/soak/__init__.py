"""A server and clients under random faults for minutes or hours, judged by an oracle and a ledger.

`python -m tests.soak --minutes 2` runs it. What the oracle may ask, in words: without sessions a message that the
kernel accepted is lost when its connection dies, and nobody can know. Whatever is not lost that way has to arrive
once, in order and unaltered, or be reported as undelivered. `oracle` has the rules.
"""
