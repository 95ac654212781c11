"""The hardening chapter: what peers, systems and programs do to the library, on purpose or not, and what must hold.

Each test is named as the promise.  What belongs to one module alone is in that module's own tests; here is what only
shows when everything is at work, measured from outside wherever it can be.  Attack -> required outcome -> where it is
tested (here, where no room is named):

* a header of hundreds of blanks and a NUL -> every pattern is linear at its largest input -> tests.test_patterns
* a signal's handler that raises in send, recv, open, close, batch -> whole frames, each at most once, nothing left
  held; or it ends and says so -> tests.channel.test_*_interrupted, tests.client.test_client_signals,
  tests.server.test_server_signals
* Ctrl-C while send has no connection -> at once -> tests.client.test_client_process
* Pings by the thousand from 16 peers -> deadlines of the others hold -> test_floods
* broadcasts in bursts to readers that pause -> no queue is forgotten -> test_drains
* messages that inflate, texts of wide characters, nobody receives -> memory is bounded as promised -> test_memory
* large messages over many connections -> little of it stays -> test_memory, tests.net.test_heap
* slow readers of large pages -> streamed; a few hundred KiB each; cut only without progress -> test_pages,
  tests.server.test_answers
* a page whose name points at the loopback address (DNS rebinding) -> refused, and why ->
  tests.server.test_upgrade_policy, tests.server.test_policy
* no memory or descriptors when numpy is first wanted -> without it -> test_starved
* no descriptors left at a client's attempt -> a passing fault, tried again -> tests.client.test_faults
* a fork at any instant -> nothing hangs, nothing stays open in the child -> tests.test_forking, tests.server.test_hub
* a peer that is stopped while bytes of it wait unread -> noticed within a bound -> test_stopped
* times of inf, nan, 1e300, 10**30 -> they work, or ValueError where they are given -> tests.test_checks,
  tests.test_timing
* the garbage collector is off -> what is over is freed by reference counts -> test_reference_counts
* many TLS clients in one process -> one default context -> tests.client.test_tls
* SystemExit in an application's function -> ends the client, and is told -> tests.client.test_client_ends
* a batch that meets a disconnect -> in the kernel, or queued, as a whole -> test_batches, tests.channel.test_batch
* close(code=999) -> ValueError, nothing changed -> tests.client.test_client_close
* a 103 before the 101; a bearer token beyond ASCII -> borne; ValueError -> tests.client.test_handshake_stream,
  tests.server.test_policy
* system calls that fail, or do less than they were asked to -> the documented end -> test_lies
"""
