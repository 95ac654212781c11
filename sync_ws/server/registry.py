"""Which connection has which name: claims, takeovers and removals.

Why so: a name is claimed before the opening handshake is answered and held from then on by the claim itself, an
object that nobody else has.  The end of an old connection gives back *its* claim; it cannot remove a newer holder.

Threading: every method may be called from any thread; the caller closes replaced connections, under no lock.
"""

from __future__ import annotations

import threading
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Generic, TypeVar

from ..errors import SyncWsError

__all__ = ["Claim", "NameTaken", "NoPlace", "POLICIES", "Registry"]

T = TypeVar("T")
POLICIES = ("replace", "reject", "allow")


class NameTaken(SyncWsError):
    """The name has a holder, and the policy is to reject a second one."""


class NoPlace(SyncWsError):
    """Every place is taken."""


class Claim(Generic[T]):
    """The right to a name, or to a place without one; ``holder`` is set when its connection is open."""

    __slots__ = ("holder", "name")

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.holder: T | None = None


class Registry(Mapping[str, T], Generic[T]):
    """A read-only mapping of name -> open connection, and the operations that change it.

    ``policy``: what happens to a second holder of a name. ``"replace"``: it gets the name, the first one is to be
    closed; ``"reject"``: it is refused; ``"allow"``: both stay, the mapping shows the newer one.  ``limit``: how many
    places there are, None for no limit.
    """

    def __init__(self, policy: str = "replace", limit: int | None = None) -> None:
        if policy not in POLICIES:
            raise ValueError(f"name_policy is one of {', '.join(POLICIES)}, not {policy!r}")
        self.policy = policy
        self._limit = limit
        # guards the two below; any thread, for dictionary operations only.  Reentrant: what a signal's handler calls
        # may have interrupted the thread that holds it, so whatever is iterated over there is a copy
        self._lock = threading.RLock()
        self._claims: set[Claim[T]] = set()  # every place taken, named or not, open or still in its handshake
        self._named: dict[str, list[Claim[T]]] = {}  # oldest first

    # -- the life of a claim --------------------------------------------------------------------------------------

    def claim(self, name: str | None) -> Claim[T]:
        """Take a place, and ``name`` with it if it is not None.

        NoPlace when there is none left, NameTaken when the policy refuses the name.
        """
        claim: Claim[T] = Claim(name)
        with self._lock:
            if self._limit is not None and len(self._claims) >= self._limit:
                raise NoPlace(f"all {self._limit} places are taken")
            if name is not None:
                holders = self._named.get(name)
                if holders and self.policy == "reject":
                    raise NameTaken(f"the name {name!r} is taken")
                self._named.setdefault(name, []).append(claim)
            self._claims.add(claim)
        return claim

    def open(self, claim: Claim[T], holder: T) -> list[T]:
        """The claim's connection is open: show it.  Returns the open connections that are replaced, for the caller to
        close; ``holder`` itself, where a newer one of its name is open already."""
        with self._lock:
            if claim not in self._claims:  # it has ended already
                return []
            claim.holder = holder
            if claim.name is None or self.policy != "replace":
                return []
            # the order of the claims decides, not that of the handshakes: a newer one that was faster replaces this
            # one; those still in their handshake stay, theirs is the next takeover
            claims = self._named[claim.name]
            replaced = [other for other in claims if other.holder is not None][:-1]
            self._named[claim.name] = [other for other in claims if other not in replaced]
            return [other.holder for other in replaced if other.holder is not None]

    def release(self, claim: Claim[T]) -> bool:
        """Give a claim back; whether it still held its place.  Never touches another one's."""
        with self._lock:
            if claim not in self._claims:
                return False
            self._claims.discard(claim)
            if claim.name is not None:
                holders = self._named.get(claim.name, [])
                if claim in holders:  # else it was replaced
                    holders.remove(claim)
                    if not holders:
                        del self._named[claim.name]
            claim.holder = None  # else claim, connection and what it is to call at its end would keep each other alive
            return True

    def forget_in_child(self, *, empty: bool) -> None:
        """After fork: a thread of the parent may have held the lock; ``empty``: every connection is the parent's."""
        self._lock = threading.RLock()
        if empty:
            self._claims, self._named = set(), {}

    # -- what there is --------------------------------------------------------------------------------------------

    @property
    def places(self) -> int:
        """How many connections there are, those in their opening handshake included."""
        return len(self._claims)

    def everyone(self) -> list[T]:
        """All open connections, named or not."""
        with self._lock:
            return [holder for claim in list(self._claims) if (holder := claim.holder) is not None]

    def holders(self, name: str) -> list[T]:
        """The open connections of ``name``, oldest first; more than one only with the policy ``"allow"``."""
        with self._lock:
            claims = list(self._named.get(name, ()))
            return [holder for claim in claims if (holder := claim.holder) is not None]

    def __getitem__(self, name: str) -> T:
        holders = self.holders(name)
        if not holders:
            raise KeyError(name)
        return holders[-1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def items(self) -> ItemsView[str, T]:
        """As they are now: whoever leaves while they are gone through is among them still."""
        return self._now().items()

    def values(self) -> ValuesView[T]:
        """Likewise."""
        return self._now().values()

    def _now(self) -> dict[str, T]:
        """Of each name the newest open connection."""
        with self._lock:
            named = [(name, list(claims)) for name, claims in list(self._named.items())]
        return {name: holder for name, claims in named for claim in claims if (holder := claim.holder) is not None}

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<Registry of {len(self)} names, {self.places} places, policy {self.policy}>"
