"""The browser side: the demo's page in a headless Chromium, and sync-ws.js by itself under node.

Every server is a process of its own, so that it can be killed and stopped as servers are. Without the
programs the tests are skipped, unless SYNC_WS_REQUIRE_PEERS=1 says that they must be there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import unittest

from tests.support.browser import ROOT, Browser, BrowserError, DemoServer, missing_programs

ENTER = "\ue007"
BUTTONS = ["connect", "send", "close"]
NODE_TIMEOUT = 30.0

browser: Browser | None = None


def require(*programs: str) -> None:
    """Skips, or fails where peers are required, when a program is missing."""
    missing = missing_programs(*programs)
    if not missing:
        return
    if os.environ.get("SYNC_WS_REQUIRE_PEERS") == "1":
        raise AssertionError(f"required, but not installed: {', '.join(missing)}")
    raise unittest.SkipTest(f"not installed: {', '.join(missing)}")


def tearDownModule() -> None:
    global browser
    if browser is not None:
        browser.close()
        browser = None


class BrowserModuleTest(unittest.TestCase):
    """sync-ws.js by itself, with fake sockets, timers and clocks."""

    def test_keeps_its_promises_under_fake_clocks(self) -> None:
        require("node")
        node = shutil.which("node")
        assert node is not None
        module = str(ROOT / "tests" / "support" / "browser_module_test.mjs")
        done = subprocess.run(
            [node, "--test", module],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=NODE_TIMEOUT,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class PageTest(unittest.TestCase):
    """What every test of the page needs: the browser, a server, words for what the page shows."""

    server: DemoServer

    @classmethod
    def setUpClass(cls) -> None:
        global browser
        require("chromium", "chromedriver")
        if browser is None:
            browser = Browser()

    def setUp(self) -> None:
        assert browser is not None
        self.browser = browser
        self.addCleanup(self.browser.open, "about:blank")  # no page outlives its test

    def start_server(self, port: int = 0) -> DemoServer:
        server = DemoServer(port)
        self.addCleanup(server.kill)
        return server

    def open_page(self, query: str = "", connect: bool = True) -> None:
        self.browser.open(self.server.url + query)
        if connect:
            self.browser.click("#connect")
            self.wait_for_state("open")

    def state(self) -> str:
        return self.text("#state")

    def text(self, selector: str) -> str:
        return str(self.browser.run("return document.querySelector(arguments[0]).textContent", selector))

    def wait_for_state(self, state: str, timeout: float = 8.0) -> None:
        self.browser.wait_until(f"return document.querySelector('#state').textContent === '{state}'", timeout)

    def wait_for_line(self, kind: str, text: str, count: int = 1) -> None:
        """Waits until at least that many log lines of a kind hold the text."""
        lines = f"[...document.querySelectorAll('#log .{kind} .text')]"
        holding = f"{lines}.filter((line) => line.textContent.includes('{text}'))"
        self.browser.wait_until(f"return {holding}.length >= {count}")

    def enabled_buttons(self) -> list[str]:
        """The buttons that can be clicked at this moment."""
        script = "return arguments[0].filter((id) => !document.getElementById(id).disabled)"
        return list(self.browser.run(script, BUTTONS))

    def lines(self, kind: str = "line") -> list[str]:
        """The texts in the log, of all kinds or of one."""
        script = "return [...document.querySelectorAll(arguments[0])].map((text) => text.textContent)"
        return list(self.browser.run(script, f"#log .{kind} .text"))


class ConversationTest(PageTest):
    """A page and a server that is there; one for all tests."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = DemoServer()
        cls.addClassCleanup(cls.server.kill)

    def test_buttons_follow_the_connection(self) -> None:
        self.open_page(connect=False)
        self.assertEqual((self.state(), self.enabled_buttons()), ("idle", ["connect"]))
        self.browser.click("#connect")
        self.wait_for_state("open")
        self.assertEqual(self.enabled_buttons(), ["send", "close"])
        self.browser.click("#close")
        self.wait_for_state("closed")
        self.assertEqual(self.enabled_buttons(), ["connect"])

    def test_a_message_comes_back_into_the_log_by_button_and_by_enter(self) -> None:
        self.open_page()
        self.browser.type_into("#message", "by button")
        self.browser.click("#send")
        self.wait_for_line("received", "by button")
        self.browser.type_into("#message", "<b>by Enter</b>" + ENTER)
        self.wait_for_line("received", "<b>by Enter</b>")
        self.assertEqual(self.browser.run("return document.querySelectorAll('#log b').length"), 0)
        self.assertEqual(self.browser.run("return document.querySelector('#message').value"), "")

    def test_the_name_goes_to_the_server_as_it_is_typed(self) -> None:
        self.open_page("?name=a%20%26b", connect=False)
        self.assertEqual(self.browser.run("return document.querySelector('#name').value"), "a &b")
        self.browser.type_into("#name", "=c" + ENTER)
        self.wait_for_state("open")
        self.server.wait_for(r"connect +(a &b=c) ")

    def test_heartbeats_show_the_round_trip_time(self) -> None:
        self.open_page("?interval=0.1")
        self.browser.wait_until(r"return /^\d[\d.]* ms$/.test(document.querySelector('#rtt').textContent)")
        self.wait_for_line("heartbeat", "ms", 2)
        self.assertEqual(self.state(), "open")

    def test_a_newer_connection_of_the_same_name_is_not_fought(self) -> None:
        self.open_page("?reconnect=0.2")
        self.browser.run("window.other = new WebSocket(document.querySelector('#address').textContent)")
        self.wait_for_state("closed")
        self.wait_for_line("state", "4009")
        self.assertEqual(self.enabled_buttons(), ["connect"])

    def test_the_log_is_bounded(self) -> None:
        self.open_page("?connect=1", connect=False)
        self.wait_for_state("open")
        self.browser.run("for (let i = 0; i < 255; i += 1) document.forms.compose.requestSubmit()")
        self.browser.wait_until("return document.querySelector('#log').childElementCount === 500")
        self.wait_for_state("open")

    def test_the_page_fits_narrow_and_wide_windows(self) -> None:
        self.addCleanup(self.browser.command, "Emulation.clearDeviceMetricsOverride")
        self.open_page()
        self.browser.type_into("#message", "x" * 400 + ENTER)
        self.wait_for_line("received", "x")
        for width in (360, 1280):
            window = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": False}
            self.browser.command("Emulation.setDeviceMetricsOverride", **window)
            self.assertEqual(self.browser.run("return document.documentElement.scrollWidth"), width)
            self.browser.click("#send")  # in reach, and nothing lies over it

    def test_every_control_has_a_label_and_the_console_stays_clean(self) -> None:
        self.browser.complaints()
        self.open_page()
        unnamed = """return [...document.querySelectorAll("input, button")].filter(
            (item) => !(item.labels?.length || item.textContent.trim())).map((item) => item.id)"""
        self.assertEqual(self.browser.run(unnamed), [])
        self.assertEqual(self.browser.complaints(), [])


class LossTest(PageTest):
    """Servers that die, hang and come back; a new one for every test."""

    def setUp(self) -> None:
        self.server = self.start_server()
        super().setUp()

    def test_a_killed_server_is_waited_for_and_the_page_is_back_by_itself(self) -> None:
        self.open_page("?reconnect=2")
        self.server.kill()
        self.wait_for_state("waiting")
        self.assertEqual(self.enabled_buttons(), BUTTONS)
        self.assertRegex(self.text("#countdown"), r"^\d\.\d s$")
        self.assertEqual(self.text("#attempts"), "1")
        self.browser.wait_until("return parseFloat(document.querySelector('#countdown').textContent) < 1.7")
        self.start_server(self.server.port)
        self.wait_for_state("open")
        self.assertEqual(self.enabled_buttons(), ["send", "close"])
        self.assertEqual(self.text("#attempts"), "0")
        self.browser.type_into("#message", "again" + ENTER)
        self.wait_for_line("received", "again")

    def test_messages_sent_while_it_is_down_are_delivered_in_order_after_the_return(self) -> None:
        self.open_page("?reconnect=0.3")
        self.server.kill()
        self.wait_for_state("waiting")
        for text in ("first", "second"):
            self.browser.type_into("#message", text + ENTER)
        self.wait_for_line("queued", "second")
        self.start_server(self.server.port)
        self.wait_for_line("received", "second")
        self.assertEqual(self.lines("received"), ["first", "second"])

    def test_a_server_that_hangs_is_noticed_within_interval_and_timeout(self) -> None:
        self.open_page("?interval=0.2&timeout=0.4&reconnect=5")
        self.wait_for_line("heartbeat", "ms")
        begin = time.monotonic()
        self.server.signal(signal.SIGSTOP)
        self.wait_for_state("waiting")
        self.assertLess(time.monotonic() - begin, 0.2 + 0.4 + 2.0)  # and two for a busy machine
        self.wait_for_line("waiting", "no answer to a heartbeat")
        self.server.signal(signal.SIGCONT)
        self.browser.click("#connect")  # not waiting for the countdown
        self.wait_for_state("open")

    def test_closed_by_the_user_stays_closed_and_connect_works_again(self) -> None:
        self.open_page("?reconnect=0.2")
        self.browser.click("#close")
        self.stays_closed(0.4)
        self.browser.click("#connect")
        self.wait_for_state("open")
        self.browser.type_into("#message", "once more" + ENTER)
        self.wait_for_line("received", "once more")

    def test_closed_by_the_user_while_waiting_stays_closed_when_the_server_returns(self) -> None:
        self.open_page("?reconnect=0.5")
        self.server.kill()
        self.wait_for_state("waiting")
        self.browser.click("#close")
        self.start_server(self.server.port)
        self.stays_closed(1.0)
        self.browser.click("#connect")
        self.wait_for_state("open")

    def stays_closed(self, seconds: float) -> None:
        """Two reconnect delays long, nothing may be written to the log and the state may not change."""
        self.wait_for_state("closed")
        before = self.lines()
        with contextlib.suppress(BrowserError):
            self.wait_for_state("connecting", timeout=seconds)
        self.assertEqual((self.state(), self.lines()), ("closed", before))


if __name__ == "__main__":
    unittest.main()
