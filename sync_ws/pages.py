"""Static pages beside the WebSocket: a folder's files, and nothing outside it.

Why so: a demo or an admin page should not need a second server.  A path is decoded once and then matched segment by
segment against a strict pattern; links are not followed.  There are no redirects and no listings: what is not plainly
a file inside the folder is 404.

Threading: pure functions; files are opened in the thread of the connection that asks.
"""

from __future__ import annotations

import mimetypes
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

__all__ = ["BROWSER_PREFIX", "content_type", "find_page"]

BROWSER_PREFIX = "/sync_ws/"  # where the package's own browser module is served
_BROWSER_FOLDER = Path(__file__).parent / "browser"
_SEGMENT = re.compile(r"(?!\.)[^\x00-\x1f\x7f/\\:]+")  # no hidden files, and with them no "." and ".."
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".html": "text/html", ".css": "text/css", ".svg": "image/svg+xml"}


def find_page(folder: Path, path: str) -> Path | None:
    """The file that ``path`` (percent-encoded, beginning with a slash) names inside ``folder``; None if there is none.

    ``/`` and paths that end in a slash name ``index.html``; ``/sync_ws/`` names the package's browser modules.
    """
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        return None
    if decoded.startswith(BROWSER_PREFIX):
        folder, decoded = _BROWSER_FOLDER, decoded[len(BROWSER_PREFIX) - 1 :]
    if decoded.endswith("/"):
        decoded += "index.html"
    found = folder
    for segment in decoded[1:].split("/"):
        if not _SEGMENT.fullmatch(segment):
            return None
        found = found / segment
        if found.is_symlink():
            return None
    return found if found.is_file() else None


def content_type(page: Path) -> str:
    """The Content-Type of a file, by its name; text is UTF-8."""
    kind = _TYPES.get(page.suffix.lower()) or mimetypes.guess_type(page.name)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
