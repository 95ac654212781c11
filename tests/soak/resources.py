"""What a soak uses while it runs: threads, descriptors and memory, sampled and judged.

Memory is what the process holds, and glibc's allocator does not give back all that is freed: it creeps for some
minutes. With MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=32768 MALLOC_TRIM_THRESHOLD_=65536 in the environment the
curve shows what is really in use, to look at a long run.

Threading: one thread samples and judges.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from dataclasses import dataclass

__all__ = ["Resources", "Sample", "sample"]

MIB = 1 << 20
# of a client: its thread, housekeeper, a timer, two senders, a receiver, its server-side thread and sender, the proxy;
# twice that, for one that was replaced may linger
THREADS_EACH, THREADS_BESIDES = 18, 16
DESCRIPTORS_EACH, DESCRIPTORS_BESIDES = 24, 40
GROWTH = 64 * MIB  # from the first third of the run on
GROWTH_EACH = 4096  # bytes the oracle itself may remember of a connection


@dataclass(frozen=True)
class Sample:
    """At one moment; memory in bytes."""

    threads: int
    descriptors: int
    memory: int

    def __str__(self) -> str:
        return f"{self.threads} threads, {self.descriptors} fds, {self.memory / MIB:.0f} MiB"


def sample() -> Sample:
    """Of this process, now."""
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    return Sample(threading.active_count(), len(os.listdir(folder)), _memory())


def _memory() -> int:
    """The resident set; where only its peak is known, that."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


class Resources:
    """Samples, one a second or so; `clients` is how many run at a time."""

    def __init__(self, clients: int) -> None:
        self._clients = clients
        self.samples: list[Sample] = []

    def take(self) -> Sample:
        """Take a sample and return it."""
        self.samples.append(sample())
        return self.samples[-1]

    def problems(self, connections: int) -> list[str]:
        """What was not bounded or not flat, given how many connections there were in all."""
        if not self.samples:
            return []
        found = []
        threads = max(s.threads for s in self.samples)
        if threads > (bound := THREADS_BESIDES + THREADS_EACH * self._clients):
            found.append(f"{threads} threads at once, expected at most {bound}")
        descriptors = max(s.descriptors for s in self.samples)
        if descriptors > (bound := DESCRIPTORS_BESIDES + DESCRIPTORS_EACH * self._clients):
            found.append(f"{descriptors} file descriptors at once, expected at most {bound}")
        third = len(self.samples) // 3
        if third:
            first = max(s.memory for s in self.samples[:third])
            last = min(s.memory for s in self.samples[-third:])
            if last - first > (bound := GROWTH + GROWTH_EACH * connections):
                found.append(f"memory grew by {(last - first) / MIB:.0f} MiB, expected at most {bound / MIB:.0f}")
        return found

    def __str__(self) -> str:
        if not self.samples:
            return "no samples"
        parts = []
        for name, divisor in (("threads", 1), ("descriptors", 1), ("memory", MIB)):
            values = [getattr(s, name) // divisor for s in self.samples]
            third = max(1, len(values) // 3)
            first, last = sum(values[:third]) // third, sum(values[-third:]) // third
            parts.append(f"{name} {min(values)} to {max(values)} (first third {first}, last third {last})")
        return "; ".join(parts)
