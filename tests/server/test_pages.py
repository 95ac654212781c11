"""Static pages: a folder's files, and nothing outside it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from sync_ws import Server
from sync_ws.server.pages import check_pages, content_type, find_page
from sync_ws.testing import LedgerTestCase, serving
from tests.support.raw import RawClient, Response

OUTSIDE = (
    "/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/%2e%2e%2fsecret.txt", "/sub/../../secret.txt",
    "/%252e%252e%252fsecret.txt", "//secret.txt", "//evil", "//evil/../..", "/\\..\\secret.txt", "/..\\secret.txt",
    "/%5c..%5csecret.txt", "/index.html%00", "/%00", "/sub%00/page.html", "/link.html", "/linked/page.html",
    "/.hidden", "/.git/config", "/./index.html", "/sub/./page.html", "/sub", "/missing.html", "/sub/",
    "/index.html/", "/%ff", "/C:/x", "/index.html:stream", "/" + "a" * 300, "/" + "a/" * 1000, "/%0d%0aX-Evil:1",
    "/etc/passwd", "/sync_ws/../pages.py", "/sync_ws/%2e%2e/pages.py", "/sync_ws/", "/sync_ws/__init__.py",
    "/sync_ws//etc/passwd",
)  # fmt: skip


def make_folder(parent: Path) -> Path:
    folder = parent / "pages"
    (folder / "sub").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "index.html").write_text("<p>hello</p>")
    (folder / "sub" / "page.html").write_text("<p>sub</p>")
    (folder / "with space.txt").write_text("space")
    (folder / "code.js").write_text("export {};")
    for secret in (folder / ".hidden", folder / ".git" / "config", parent / "secret.txt"):
        secret.write_text("secret")
    (folder / "link.html").symlink_to(parent / "secret.txt")
    (folder / "linked").symlink_to(folder / "sub")
    return folder


class PagesTestCase(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = make_folder(Path(holder.name).resolve())


class FindPageTest(PagesTestCase):
    def test_files_inside_the_folder_are_found(self) -> None:
        for path, name in (
            ("/", "index.html"),
            ("/index.html", "index.html"),
            ("/sub/page.html", "sub/page.html"),
            ("/with%20space.txt", "with space.txt"),
            ("/%69ndex.html", "index.html"),
        ):
            with self.subTest(path=path):
                self.assertEqual(find_page(self.folder, path), self.folder / name)

    def test_nothing_else_is(self) -> None:
        for path in OUTSIDE:
            with self.subTest(path=path):
                self.assertIsNone(find_page(self.folder, path))

    def test_the_browser_module_of_the_package_is_found(self) -> None:
        found = find_page(self.folder, "/sync_ws/sync-ws.js")
        self.assertIsNotNone(found)
        assert found is not None
        self.assertEqual(found.name, "sync-ws.js")

    def test_a_mapping_serves_its_paths_and_no_others(self) -> None:
        pages = {"/": self.folder / "index.html"}
        self.assertEqual(find_page(pages, "/"), self.folder / "index.html")
        for path in ("/index.html", "/code.js", *OUTSIDE):
            self.assertIsNone(find_page(pages, path))

    def test_pages_that_cannot_be_meant_are_a_mistake_at_once(self) -> None:
        page = self.folder / "index.html"
        cases: list[tuple[Any, type[Exception], str]] = [
            (5, TypeError, "pages is a folder, or a mapping of paths to files, not 5"),
            ([page], TypeError, "pages is a folder, or a mapping"),
            (page, ValueError, "is a file: give a mapping such as"),
            (self.folder / "nowhere", ValueError, "does not exist"),
            ({"/": 5}, TypeError, "pages maps paths such as / to files, not '/' to 5"),
            ({5: page}, TypeError, "pages maps paths such as / to files, not 5 to "),
            ({"page": page}, ValueError, "pages maps paths such as / to files that exist, not 'page' to "),
            ({"/": self.folder}, ValueError, "to files that exist, not '/' to "),
            ({"/": page, "/ws/": page}, ValueError, "pages has '/ws/', which is the path of the WebSocket"),
        ]
        for pages, error, says in cases:
            with self.subTest(pages=pages), self.assertRaises(error) as caught:
                check_pages(pages, "/ws/")
            self.assertIn(says, str(caught.exception))

    def test_pages_are_paths_when_they_have_been_checked(self) -> None:
        page = self.folder / "index.html"
        self.assertIsNone(check_pages(None))
        self.assertEqual(check_pages(str(self.folder)), self.folder)
        self.assertEqual(check_pages({"/": str(page), "/x": page}, "/ws/"), {"/": page, "/x": page})

    def test_content_types(self) -> None:
        for name, kind in (
            ("a.html", "text/html; charset=utf-8"),
            ("a.JS", "text/javascript; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.svg", "image/svg+xml"),
            ("a.png", "image/png"),
            ("a.unknown-kind", "application/octet-stream"),
            ("a", "application/octet-stream"),
        ):
            self.assertEqual(content_type(Path(name)), kind)


class ServedPagesTest(PagesTestCase):
    def ask(self, port: int, path: str, method: str = "GET") -> Response:
        with RawClient(port) as client:
            return client.request(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def test_pages_are_served_beside_the_websocket(self) -> None:
        with serving(pages=self.folder) as server:
            answer = self.ask(server.port, "/")
            self.assertEqual((answer.status, answer.body), (200, b"<p>hello</p>"))
            self.assertEqual(answer.headers["content-type"], "text/html; charset=utf-8")
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
            self.assertEqual(answer.headers["connection"], "close")
            self.assertEqual(self.ask(server.port, "/code.js?v=1").body, b"export {};")
            self.assertEqual(self.ask(server.port, "/sync_ws/sync-ws.js").status, 200)
            with RawClient(server.port) as client:
                client.upgrade()

    def test_head_has_the_headers_and_no_body(self) -> None:
        with serving(pages=self.folder) as server, RawClient(server.port) as client:
            client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = client.read_to_end()
            self.assertIn(b"Content-Length: 12\r\n", answer)
            self.assertTrue(answer.endswith(b"\r\n\r\n"))

    def test_everything_outside_is_404_without_a_redirect(self) -> None:
        with serving(pages=self.folder) as server:
            for path in OUTSIDE:
                with self.subTest(path=path):
                    answer = self.ask(server.port, path)
                    self.assertEqual(answer.status, 404)
                    self.assertNotIn("location", answer.headers)
                    self.assertEqual(answer.line, "no such page; the WebSocket is at /ws/")

    def test_other_methods_are_405(self) -> None:
        with serving(pages=self.folder) as server:
            answer = self.ask(server.port, "/", "DELETE")
            self.assertEqual((answer.status, answer.headers["allow"]), (405, "GET, HEAD"))

    def test_the_websockets_path_wins_over_a_page_of_that_name(self) -> None:
        (self.folder / "ws").mkdir()
        (self.folder / "ws" / "index.html").write_text("page")
        with serving(pages=self.folder) as server:
            self.assertEqual(self.ask(server.port, "/ws/").status, 426)

    def test_a_page_that_cannot_be_read_is_404(self) -> None:
        page = self.folder / "page.txt"
        page.write_text("soon gone")
        with self.assertLogs("sync_ws.server", "INFO"), serving(pages={"/page": page}) as server:
            page.unlink()
            self.assertEqual(self.ask(server.port, "/page").status, 404)

    def test_without_pages_there_are_none(self) -> None:
        with serving() as server:
            answer = self.ask(server.port, "/")
            self.assertEqual((answer.status, answer.line), (404, "expected the path /ws/, got '/'"))

    def test_single_files_may_be_given_paths(self) -> None:
        with serving(pages={"/": self.folder / "index.html"}) as server:
            self.assertEqual(self.ask(server.port, "/").body, b"<p>hello</p>")
            self.assertEqual(self.ask(server.port, "/code.js").status, 404)
        for pages in ({"/": self.folder / "missing"}, {"index": self.folder / "index.html"}):
            with self.assertRaisesRegex(ValueError, "paths such as /"):
                Server(pages=pages)

    def test_a_folder_that_is_not_there_is_an_error_at_once(self) -> None:
        with self.assertRaises(ValueError), serving(pages=self.folder / "nowhere"):
            self.fail("a server without its folder was made")
