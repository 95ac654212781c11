"""Header fields, as an opening handshake brings them: a mapping, and every value of a repeated one.

Threading: never changed once made; share them freely.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Headers"]


class Headers(Mapping[str, str]):
    """Header fields by case-insensitive name; of a repeated one, the values joined by commas (RFC 9110 section 5.3).

    Set-Cookie cannot be joined, for there are commas in its dates: of that it is the first; ``get_all`` has them all.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in fields:
            self._fields.setdefault(name.lower(), []).append(value)

    def get_all(self, name: str) -> list[str]:
        """Every value of ``name``, in the order received; an empty list if there is none."""
        return list(self._fields.get(name.lower(), ()))

    def tokens(self, name: str) -> list[str]:
        """The comma-separated elements of ``name``, over all its lines, empty ones left out."""
        parts = (part.strip() for value in self._fields.get(name.lower(), ()) for part in value.split(","))
        return [part for part in parts if part]

    def __getitem__(self, name: str) -> str:
        values = self._fields[name.lower()]
        return values[0] if name.lower() == "set-cookie" else ", ".join(values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:  # names only: values may be secrets
        return f"<Headers {', '.join(self._fields)}>"
