"""Every regular expression of the package is linear: at the worst input of the largest size, it is done at once.

A pattern is found by its being in a module, not by a list: a new one is tested without anybody's thinking of it.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import time
import unittest
from typing import Any

from tests.test_house import module_names, modules, tree

LIMIT = 40 * 1024  # characters: no more of a head is ever read
QUICK = 0.25  # seconds of processor time for one input: a linear pattern takes milliseconds, a quadratic one seconds
USES = {"match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
# what a pattern may repeat, and what may stop it: one of them, or two in turn, then another
PIECES = (" ", "\t", "a", "Z", "0", "8", ":", ";", ",", "=", "/", '"', "\\", ".", "[", "-", "\r", "\n", "\x00", "\xe4")
BEGINNINGS = ("", "GET /", "GET / HTTP/1.1", "HTTP/1.1 101 ", "a:", "[", "1")


def patterns() -> list[tuple[str, re.Pattern[Any]]]:
    found = []
    for module in modules():
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                found.append((f"{module.__name__}.{name}", value))
    return found


def worst_inputs() -> list[str]:
    repeated = [piece * LIMIT for piece in PIECES]
    repeated += [(one + two) * (LIMIT // 2) for one, two in itertools.combinations(PIECES[:12], 2)]
    return [
        beginning + text[: LIMIT - len(beginning) - 1] + end
        for beginning in BEGINNINGS
        for text in repeated
        for end in ("", "\x00")
    ]


class Linear(unittest.TestCase):
    def test_every_pattern_is_done_at_once_with_the_worst_that_can_come(self) -> None:
        found = patterns()
        self.assertGreater(len(found), 5)
        inputs = worst_inputs()
        for name, pattern in found:
            for text in inputs:
                given: Any = text if isinstance(pattern.pattern, str) else text.encode("latin-1")
                started = time.process_time()
                pattern.fullmatch(given)
                pattern.search(given)
                self.assertLess(time.process_time() - started, QUICK, f"{name} with {text[:20]!r}...{text[-5:]!r}")

    def test_every_pattern_is_where_it_is_found(self) -> None:
        """None is compiled in a function, and none is given as text to a function of `re`."""
        for name in module_names():
            module = importlib.import_module(name) if not name.endswith("__main__") else None
            body = tree(name)
            at_the_top = {id(node) for statement in body.body for node in _calls(statement) if _is_plain(statement)}
            for node in ast.walk(body):
                if isinstance(node, ast.Call) and _of_re(node):
                    with self.subTest(f"{name}:{node.lineno}"):
                        self.assertIsNotNone(module)
                        self.assertIn(id(node), at_the_top)
                        self.assertNotIn(_of_re(node), USES)

    def test_a_pattern_that_goes_back_would_be_noticed(self) -> None:
        culprit = re.compile(r"[^\x00\r\n]*?[ \t]*")
        text = " " * (LIMIT // 4) + "\x00"  # a quarter of the size, a sixteenth of the time
        started = time.process_time()
        culprit.fullmatch(text)
        self.assertGreater((time.process_time() - started) * 16, QUICK)


def _is_plain(statement: ast.stmt) -> bool:
    return isinstance(statement, (ast.Assign, ast.AnnAssign))


def _calls(statement: ast.stmt) -> list[ast.Call]:
    return [node for node in ast.walk(statement) if isinstance(node, ast.Call)]


def _of_re(call: ast.Call) -> str:
    """The name of the function of `re` that is called; empty if it is none of them."""
    function = call.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "re":
        return function.attr
    return ""


if __name__ == "__main__":
    unittest.main()
