"""The benchmark: ``python -m tests.benchmark`` (``--quick`` for the headline rows in about two minutes).

Every contender runs in a process of its own and is driven by one neutral load generator that is not our
client (``load.c``, or ``load_picows`` where there is no C compiler). Only ratios within one run mean
anything: contenders take turns A B C B C A, a ratio is formed within each round, and what is reported is the
median over the rounds.

================== ===================================================================================
``__main__``       command line; runs the rows, contenders taking turns
``rows``           what is measured and which target it has to meet
``measures``       how one figure is measured
``trees``          two checkouts of sync_ws against each other (``--quick --against PATH``)
``contenders``     who takes part
``servers``        the server contenders, each as a small child process
``clients``        the client contenders, likewise
``generator``      builds and runs the load generator
``processes``      child processes: pinned, watched, never left behind
``machine``        the description of the machine that goes with the figures
``report``         medians, ratios, verdicts; the table in text and in Markdown
``chart``          the chart, an SVG written by hand
================== ===================================================================================

Nothing here is a unit test, and no unit test asserts a time.

What makes a comparison unfair, and what is done about it
---------------------------------------------------------

*Cold servers.* asyncio reads into 256 KiB, which malloc maps and unmaps for each read until it has seen such a piece
freed; that is when a stream ends without a Close frame. The same aiohttp server does half as much before that as after
it. So every server gets connections that come and go, with and without a Close frame, with messages as they are
measured next; every client opens, uses and closes some before the one that is measured.

*Who comes before.* Hundreds of threads that end, or quarrel about the interpreter's lock, slow down whoever is measured
next on the same core. So one server is there at a time, and everybody has every place in turn. With 1000 busy
connections a server on threads may still be caught in such a quarrel in one round and not in the next: lowest and
highest round are shown with every median.

*One core or two.* On one core a round trip costs the CPU time of both sides and two context switches; on two they work
at the same time, but each waits for the other core to wake up, which on a virtual machine takes longer than the
work. One connection in turns does best on one core, many connections and many messages in flight on two; threads that
share the interpreter's lock must not be spread over both. So a process is always on one core, and the main rows are
there in both placings (``split-*``).

*The generator's share.* On one core its time is in every figure alike and brings figures together; so the CPU time that
the process under test used for one message is shown as well. ``limit`` is the generator's own echo server in C: no
server can be shown to do more. TLS costs the generator as much as a server in C; it reads and writes each message
with one system call, and refuses another cipher than the others have (TLS 1.3, AES-256-GCM).

*What a round asks for.* The same messages from and to everybody; each reply is compared in full. With compression 64
different messages of JSON, lest each be a reference to the one before it. Windows, levels and memory are what each
package has chosen: aiohttp compresses at the fastest level, websockets with a window of 4 KiB, sync_ws as zlib
does by itself; the bytes that came of it are shown.

*Surroundings.* Variables named PYTHON..., MALLOC_... and ..._proxy do not reach the children. Versions are in the
report, of OpenSSL and zlib too, and whether the compiled parts that packages silently do without are there.

How each one is set up
----------------------

As its documentation shows, with its defaults, except where another setting is faster:

* sync_ws: ``max_connections`` raised. Large messages with numpy importable and without, as both are found.
* websockets.sync: defaults, its C extension present. No difference: ``ping_interval=None`` (which saves one of three
  threads), ``compression=None``, ``max_queue=None`` (a little slower), ``recv()`` in a loop.
* simple-websocket: ``receive_bytes=65536``; its 4096 halve what it does with large messages. It has no TLS and no
  compression of its own.
* aiohttp: no access log; on asyncio and on uvloop, neither of which is best in every row. No difference:
  ``compress=False`` where compression is not asked for. Its broadcast is a loop of ``send_str``.
* picows: on uvloop, with aiofastnet, which it uses where it is installed. No difference: ``use_aiofastnet=False``,
  a larger buffer. It hands out frames: UTF-8 and fragments are the application's business. No compression.
* bare socket: nothing is checked; what Python's threads and system calls cost by themselves.
* websocket-client: as it is installed, checking UTF-8 in Python byte by byte, and with wsaccel, C for that and for
  masking. ``create_connection`` has no thread, no Pings and no reconnecting. ``skip_utf8_validation`` would check less
  than the others do; ``enable_multithread=False`` makes no difference.

The load generator has TLS where OpenSSL's headers are (Debian: libssl-dev, and the openssl command), compression where
zlib's are (zlib1g-dev); rows that it cannot do are left out with a note, as are contenders that cannot be imported.
"""
