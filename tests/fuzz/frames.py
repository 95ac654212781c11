"""The differential fuzz: the same bytes to our FrameReader, in any pieces, and to the protocol of `websockets`.

Both have to find the same messages and controls and to come to the same verdict. Where they may differ is listed in
`differences`, each entry with its reason; everything else is a finding.

Threading: none.
"""

from __future__ import annotations

import codecs
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.protocol import OPEN, Protocol, Side

from sync_ws.messages import Message, Opcode
from sync_ws.protocol.deflate import Deflate, Negotiation
from sync_ws.protocol.frame_reader import FrameReader
from sync_ws.protocol.intercepts import HEART_BEAT
from tests.fuzz.differences import DIFFERENCES, LIMIT, Case, Outcome
from tests.fuzz.streams import damaged, headers, pieces, stream

__all__ = ["DIFFERENCES", "Case", "Outcome", "compare", "ours", "run", "theirs"]

# our side


def ours(case: Case, parts: Sequence[bytes], room: int) -> Outcome:
    """What FrameReader makes of the parts."""
    deflate = None if case.deflate is None else Deflate(Negotiation(receive_takeover=case.deflate))
    reader = FrameReader(
        expect_masked=case.masked, max_message=LIMIT, max_fragments=1 << 30, intercepts=(HEART_BEAT,), deflate=deflate,
    )  # fmt: skip
    outcome = Outcome()
    for part in parts:
        reader.feed(part)
        found: deque[Message] = deque()
        controls: Sequence[Any] = [None]
        while controls or found:
            found.clear()
            controls = reader.parse(found, room)
            for message in found:
                outcome.take(message)
            for control in controls:
                _take_control(outcome, control)
    return outcome


def _take_control(outcome: Outcome, control: Any) -> None:
    if control.opcode == Opcode.INTERCEPTED:
        outcome.heart_beats.append(control.text)
    elif control.opcode == Opcode.FAIL:
        outcome.code, outcome.text = control.close
    elif control.opcode == Opcode.CLOSE:
        outcome.closed = tuple(control.close or (1005, ""))
    else:
        outcome.controls.append((control.opcode, control.payload))


# their side


class _Deflate(PerMessageDeflate):
    """Theirs, which also notes when its inflater has come to the end of a stream."""

    finished = False
    _held: Any = None

    @property
    def decoder(self) -> Any:
        """The inflater; it stays here when theirs lets go of it at the end of a message."""
        return self._held

    @decoder.setter
    def decoder(self, inflater: Any) -> None:
        self._held = inflater

    @decoder.deleter
    def decoder(self) -> None:
        pass

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        decoded = super().decode(frame, max_size=max_size)
        self.finished = self.finished or (self._held is not None and self._held.eof)
        return decoded


def theirs(case: Case) -> Outcome:
    """What the sans-I/O protocol of `websockets` makes of the bytes, and of the text in its frames."""
    protocol = Protocol(Side.SERVER if case.masked else Side.CLIENT, state=OPEN, max_size=LIMIT)
    deflate = _Deflate(not case.deflate, False, 15, 15)
    if case.deflate is not None:
        protocol.extensions = [deflate]
    outcome = Outcome()
    collected = _Collected(outcome)
    # frame by frame, to know what came before the inflater had finished
    at = 0
    for end in [*(header.end for header in headers(case.data)), len(case.data)]:
        protocol.receive_data(case.data[at:end])
        at = max(at, end)
        for frame in protocol.events_received():
            if isinstance(frame, Frame) and outcome.code is None:
                collected.take(frame)
        if deflate.finished and outcome.good == 1 << 60:
            outcome.good = len(outcome.messages)
    if protocol.parser_exc is not None and outcome.code is None:
        assert protocol.close_sent is not None
        outcome.code, outcome.text = int(protocol.close_sent.code), str(protocol.parser_exc)
        outcome.closed = None
    return outcome


class _Collected:
    """Puts frames together, as the upper layers of `websockets` do."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._decoder: codecs.IncrementalDecoder | None = None
        self._pieces: list[Any] = []

    def take(self, frame: Frame) -> None:
        opcode, data = int(frame.opcode), bytes(frame.data)
        if opcode == Opcode.CLOSE:
            code = int.from_bytes(data[:2], "big") if data else 1005
            self._outcome.closed = (code, data[2:].decode())
        elif opcode > 2:
            self._outcome.controls.append((opcode, data))
        else:
            self._take_data(opcode, data, frame.fin)

    def _take_data(self, opcode: int, data: bytes, final: bool) -> None:
        if opcode:
            self._decoder = codecs.getincrementaldecoder("utf-8")() if opcode == Opcode.TEXT else None
            self._pieces = []
        try:
            self._pieces.append(data if self._decoder is None else self._decoder.decode(data, final))
        except UnicodeDecodeError:
            self._outcome.code = 1007
            return
        if final:
            self._outcome.take((b"" if self._decoder is None else "").join(self._pieces))


# the comparison


def compare(case: Case, we: Outcome) -> tuple[str | None, str | None]:
    """(None, None) when both agree; the name of the known difference; or, second, what is wrong."""
    they = theirs(case)
    if we.same(they):
        return None, None
    name = None
    if we.code is not None and they.code is None and they.closed is None:
        # ours fails from the header: let theirs have the payload that it waits for
        case = case._replace(data=_completed(case.data))
        they = theirs(case)
        name = "refused from its header, before the payload is there"
        if we.same(they):
            return name, None
    for difference in DIFFERENCES:
        if difference.applies(case, we, they) and _agree_so_far(we, they):
            return difference.name, None
    return None, _described(case, we, they)


def _described(case: Case, we: Outcome, they: Outcome) -> str:
    """What they do not agree in, and the bytes to repeat it with."""
    lines = [f"{name}: ours {getattr(we, name)!r}, theirs {getattr(they, name)!r}"
             for name in ("messages", "heart_beats", "controls", "closed", "code")
             if getattr(we, name) != getattr(they, name)]  # fmt: skip
    return "\n  ".join([*lines, f"texts: ours {we.text!r}, theirs {they.text!r}", repr(case)])


def _completed(data: bytes) -> bytes:
    """With zeros up to the end of the frame under way."""
    longer = data + bytes(14)
    end = max((header.end for header in headers(longer) if header.end < len(data) + 100_000), default=len(data))
    starts = [header.end for header in headers(longer) if header.end >= len(data)]
    end = min(starts, default=end)
    return data + bytes(max(0, min(end, len(data) + 100_000) - len(data)))


def _agree_so_far(we: Outcome, they: Outcome) -> bool:
    """One has found the beginning of what the other has found."""
    for mine, other in ((we.messages[: they.good], they.messages[: they.good]),
                        (we.controls, they.controls)):  # fmt: skip
        shorter = min(len(mine), len(other))
        if list(mine[:shorter]) != list(other[:shorter]):
            return False
    return True


def run(seconds: float, seed: int, most: int | None = None) -> tuple[Counter[str], list[str]]:
    """Fuzz for so long, or `most` cases: how many there were of what, and what was found."""
    rng = random.Random(f"{seed} frames")
    counts: Counter[str] = Counter()
    findings: list[str] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and (most is None or counts["cases"] < most) and len(findings) < 10:
        case = Case(b"", rng.random() < 0.5, rng.choice((None, None, True, False)))
        data = stream(rng, masked=case.masked, deflate=case.deflate is not None)
        case = case._replace(data=damaged(rng, data) if rng.random() < 0.4 else data)
        we = ours(case, [case.data], 1 << 30)
        split = ours(case, pieces(rng, case.data), rng.choice((1, 2, 1 << 30)))
        counts["cases"] += 1
        counts["bytes"] += len(case.data)
        counts[f"verdict {we.code or (we.closed and 'closed') or 'open'}"] += 1
        if not we.same(split):
            findings.append(f"the split matters: {case}\n  whole: {we}\n  split: {split}")
        difference, wrong = compare(case, we)
        if difference:
            counts[f"known difference: {difference}"] += 1
        if wrong:
            findings.append(wrong)
    return counts, findings
