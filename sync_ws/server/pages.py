"""Static pages beside the WebSocket: a folder's files, or a few named ones, and nothing else.

Why so: a demo or an admin page should not need a second server.  A path is decoded once and then matched segment by
segment against a strict pattern; links are not followed.  There are no redirects and no listings: what is not plainly
a file inside the folder is 404.

Threading: pure functions; files are opened in the thread of the connection that asks.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote_to_bytes

from ..checks import shown

__all__ = ["BROWSER_PREFIX", "Pages", "check_pages", "content_type", "find_page"]

Pages = Path | Mapping[str, Path]

BROWSER_PREFIX = "/sync_ws/"  # where the package's own browser module is served
_BROWSER_FOLDER = Path(__file__).parents[1] / "browser"
_SEGMENT = re.compile(r"(?!\.)[^\x00-\x1f\x7f/\\:]+")  # no hidden files, and with them no "." and ".."
_TYPES = {  # the system's own table is not to be relied on for what a browser is strict about
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
}


def check_pages(pages: str | Path | Mapping[str, str | Path] | None, path: str = "") -> Pages | None:
    """A folder, or a mapping of paths to files; ValueError if the folder or a file is not there, or if a page is at
    ``path``, where the WebSocket is."""
    if pages is None:
        return None
    if not isinstance(pages, (str, Path, Mapping)):
        raise TypeError(f"pages is a folder, or a mapping of paths to files, not {shown(pages)}")
    if isinstance(pages, Mapping):
        return {url: _check_page(url, file, path) for url, file in pages.items()}
    if not Path(pages).is_dir():
        what = "is a file: give a mapping such as {'/': 'page.html'}" if Path(pages).exists() else "does not exist"
        raise ValueError(f"pages is a folder, or a mapping of paths to files, and {shown(str(pages))} {what}")
    return Path(pages)


def _check_page(url: str, file: str | Path, path: str) -> Path:
    if not isinstance(url, str) or not isinstance(file, (str, Path)):
        raise TypeError(f"pages maps paths such as / to files, not {shown(url)} to {shown(file)}")
    if not url.startswith("/") or not Path(file).is_file():
        raise ValueError(f"pages maps paths such as / to files that exist, not {shown(url)} to {shown(str(file))}")
    if url == path:
        raise ValueError(f"pages has {shown(url)}, which is the path of the WebSocket")
    return Path(file)


def find_page(pages: Pages, path: str) -> Path | None:
    """The file that ``path`` (percent-encoded, beginning with a slash) names; None if there is none.

    In a folder, ``/`` and paths that end in a slash name ``index.html``.  ``/sync_ws/`` names the package's browser
    modules.
    """
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        return None
    if decoded.startswith(BROWSER_PREFIX):
        pages, decoded = _BROWSER_FOLDER, decoded[len(BROWSER_PREFIX) - 1 :]
    if isinstance(pages, Mapping):
        return pages.get(decoded)
    if decoded.endswith("/"):
        decoded += "index.html"
    found = pages
    try:
        for segment in decoded[1:].split("/"):
            if not _SEGMENT.fullmatch(segment):
                return None
            found = found / segment
            if found.is_symlink():
                return None
        return found if found.is_file() else None
    except OSError:  # longer than a file's name may be
        return None


def content_type(page: Path) -> str:
    """The Content-Type of a file, by its name; text is UTF-8."""
    kind = _TYPES.get(page.suffix.lower()) or mimetypes.guess_type(page.name)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
