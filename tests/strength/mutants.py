"""Random changes to the code, one at a time; of each, whether the module's own tests notice.

    python -m tests.strength.mutants [--sample 300 | --all] [--seed 1] [--jobs 2] [room/module ...]
    python -m tests.strength.mutants channel/writer:212:17:0      one of them again, with what its tests print

Why so: a line can be run by a test that would not notice were it wrong.  A change is one that an engineer could make
by mistake: a comparison the other way round or off by one, a condition negated, one operand of an ``and`` forgotten, a
step left out, a number one higher.  Texts, annotations and names are left alone.  Each mutant lives in a copy of the
tree, so yours is never touched; the tests that a module owns are those named after it (``own``), and of these only the
ones are run that come by the changed line, which a first run under coverage tells.  What survives is a missing test, or
a change that nobody could notice: then it is judged, once and with the reason, in ``judged/<room>.<module>.txt``, and
tried no more.

Threading: one thread for each job, each with its own copy and a process at a time.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import coverage

from tests.strength.own import PACKAGE, ROOT, own_tests
from tests.support.uncovered import uncovered

__all__ = ["CORE", "JUDGED", "Mutant", "judged", "mutants_of"]

CORE = (
    "channel/channel", "channel/housekeeper", "channel/receiver", "channel/writer", "client/backoff", "client/client",
    "client/heartbeat", "client/line", "client/thread", "protocol/frame_reader", "server/hub", "server/registry",
    "server/server", "server/upgrade",
)  # fmt: skip
JUDGED = Path(__file__).parent / "judged"
COPIED = ("sync_ws", "tests", "demo", "docs", "setup.cfg", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE")
MEMORY = 4 << 30  # bytes of address space for the tests of a mutant, which may make a loop endless
PATIENCE = 30.0  # seconds beyond three times what the unchanged module's tests took
COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "//", ast.FloorDiv: "*", ast.Div: "*", ast.Mod: "*", ast.BitAnd: "|",
    ast.BitOr: "&", ast.BitXor: "|", ast.LShift: ">>", ast.RShift: "<<",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: ``old`` between two offsets of a module's source becomes ``new``."""

    module: str
    line: int
    last: int  # line of what is changed
    column: int
    number: int  # among those of one place
    start: int
    end: int
    old: str
    new: str
    text: str  # the line it begins in

    @property
    def name(self) -> str:
        return f"{self.module}:{self.line}:{self.column}:{self.number}"

    @property
    def change(self) -> str:
        return " ".join(f"{self.old} -> {self.new}".split())

    def __str__(self) -> str:
        return f"{self.name}  {self.change}"


class _Finder(ast.NodeVisitor):
    """All changes of one module, in the order of its lines."""

    def __init__(self, module: str, source: str) -> None:
        self._module = module
        self._source = source.encode()  # columns are in bytes
        self._lines = [0]
        for line in self._source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self.found: list[Mutant] = []
        self.visit(ast.parse(source))

    def _offsets(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._lines[node.lineno - 1] + node.col_offset, self._lines[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.expr | ast.stmt) -> str:
        start, end = self._offsets(node)
        return self._source[start:end].decode()

    def _change(self, node: ast.expr | ast.stmt, new: str) -> None:
        start, end = self._offsets(node)
        number = sum((other.line, other.column) == (node.lineno, node.col_offset) for other in self.found)
        old, last = self._source[start:end].decode(), node.end_lineno or node.lineno
        begin = self._lines[node.lineno - 1]
        text = self._source[begin : self._lines[node.lineno]].decode().strip()
        place = self._module, node.lineno, last, node.col_offset, number, start, end
        self.found.append(Mutant(*place, old, new, text))

    def visit_Compare(self, node: ast.Compare) -> None:
        if len(node.ops) == 1:
            left, right = self._text(node.left), self._text(node.comparators[0])
            self._change(node, f"({left}) {COMPARISONS[type(node.ops[0])]} ({right})")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        values, word = [self._text(value) for value in node.values], "and" if isinstance(node.op, ast.And) else "or"
        for left_out in range(len(values)):
            kept = [f"({value})" for index, value in enumerate(values) if index != left_out]
            self._change(node, f"({f' {word} '.join(kept)})")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._change(node, f"bool({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        strings = (isinstance(part, ast.JoinedStr) or _is_text(part) for part in (node.left, node.right))
        if type(node.op) in OPERATORS and not any(strings):
            self._change(node, f"({self._text(node.left)}) {OPERATORS[type(node.op)]} ({self._text(node.right)})")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._change(node, "pass")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._change(node, str(not node.value))
        elif isinstance(node.value, (int, float)):
            self._change(node, repr(node.value + 1))

    def visit_If(self, node: ast.If) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def _negate(self, test: ast.expr) -> None:
        if not isinstance(test, (ast.Compare, ast.Constant)) and not (
            isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
        ):
            self._change(test, f"(not ({self._text(test)}))")

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, (ast.Constant, ast.Yield)):
            self._change(node, "pass")
            self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets):
            return
        if all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets):
            self._change(node, "pass")
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not isinstance(node.value, ast.Constant):  # which is changed itself
            self._change(node, "return None")
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._change(node, "pass")

    def visit_Break(self, node: ast.Break) -> None:
        self._change(node, "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._change(node, "break")

    def visit_arguments(self, node: ast.arguments) -> None:
        for default in (*node.defaults, *node.kw_defaults):
            if default is not None:
                self.visit(default)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.visit(node.args)
        for statement in node.body:
            self.visit(statement)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Texts are for people."""


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def judged(module: str) -> dict[tuple[str, str], str]:
    """What nobody could notice, by the line it is in and the change, and why; see the files."""
    path = JUDGED / f"{module.replace('/', '.')}.txt"
    if not path.exists():
        return {}
    blocks = [block.splitlines() for block in path.read_text(encoding="utf-8").strip().split("\n\n")]
    return {(line, change): " ".join(reason) for line, change, *reason in blocks}


def mutants_of(module: str) -> list[Mutant]:
    """All changes of ``room/module`` but those that were judged."""
    found = _Finder(module, (PACKAGE / f"{module}.py").read_text(encoding="utf-8")).found
    known = judged(module)
    return [mutant for mutant in found if (mutant.text, mutant.change) not in known]


# -- trying them -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Knowledge:
    """Which tests come by each line of a module, and how many seconds all of them may take."""

    lines: dict[int, list[str]]
    timeout: float

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Those that come by; all, where it is not a test that runs the line: at import, or in another process."""
        contexts = {name for line in range(mutant.line, mutant.last + 1) for name in self.lines.get(line, [""])}
        if "" in contexts or any(_unknown(name) for name in contexts):
            return own_tests(mutant.module)
        return sorted(contexts)


def _unknown(name: str) -> bool:
    """Whether unittest finds no test of that name."""
    loader = unittest.TestLoader()
    try:
        loader.loadTestsFromName(name)
    except TypeError:  # it is a function of something else
        return True
    return bool(loader.errors)


class Copy:
    """A tree of its own, in which one mutant at a time is tried."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            there = ROOT / name
            if there.is_dir():
                shutil.copytree(there, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif there.exists():
                shutil.copy(there, folder / name)

    def run(self, tests: list[str], timeout: float | None = None, *under: str) -> tuple[bool, str]:
        """Whether they pass here, and what they print; ``under``: a module that runs unittest."""
        environment = uncovered() | {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            [sys.executable, *under, "-m", "unittest", "-f", *tests], cwd=self.folder, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
        )  # fmt: skip
        try:
            output = process.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return False, process.communicate()[0] + "\nit did not end"
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # what a mutant left running
            except ProcessLookupError:
                pass
        return process.returncode == 0, output

    def learn(self, module: str) -> Knowledge | str:
        """What there is to know before a mutant of ``module`` is tried, or what its tests print where they fail."""
        begun = time.monotonic()
        passed, output = self.run(own_tests(module), None, "-m", "coverage", "run")
        took = time.monotonic() - begun
        if not passed:
            return output
        data = coverage.Coverage(data_file=str(self.folder / ".coverage"), config_file=str(self.folder / "setup.cfg"))
        data.combine([str(self.folder)])
        lines = data.get_data().contexts_by_lineno(str(self.folder / "sync_ws" / f"{module}.py"))
        return Knowledge(lines, 3 * took + PATIENCE)

    def survives(self, mutant: Mutant, known: Knowledge) -> tuple[bool, str]:
        """Whether the module's tests pass although it is changed."""
        path = self.folder / "sync_ws" / f"{mutant.module}.py"
        source = path.read_bytes()
        path.write_bytes(source[: mutant.start] + mutant.new.encode() + source[mutant.end :])
        try:
            return self.run(known.tests_of(mutant), known.timeout)
        finally:
            path.write_bytes(source)


class Trial:
    """Mutants on their way through the jobs."""

    def __init__(self, mutants: list[Mutant]) -> None:
        self._left = iter(mutants)
        self._total = len(mutants)
        self._learning = threading.Lock()  # guards the two below; one at a time learns, and all others wait for it
        self._known: dict[str, Knowledge | None] = {}
        self.broken: list[str] = []  # modules whose tests fail as they are
        self._lock = threading.Lock()  # guards the rest
        self.tried = 0
        self.survivors: list[Mutant] = []

    def work(self) -> None:
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            copy = Copy(Path(folder))
            for mutant in self._next():
                known = self._knowledge(copy, mutant.module)
                if known is None:
                    continue
                survived, _ = copy.survives(mutant, known)
                with self._lock:
                    self.tried += 1
                    if survived:
                        self.survivors.append(mutant)
                    print(f"{self.tried}/{self._total} {'SURVIVED' if survived else 'killed  '} {mutant}", flush=True)

    def _next(self) -> Iterator[Mutant]:
        while True:
            with self._lock:
                mutant = next(self._left, None)
            if mutant is None:
                return
            yield mutant

    def _knowledge(self, copy: Copy, module: str) -> Knowledge | None:
        """None where the tests of ``module`` fail without any mutant."""
        with self._learning:
            if module not in self._known:
                learnt = copy.learn(module)
                if isinstance(learnt, str):
                    self.broken.append(module)
                    print(f"the tests of {module} fail as they are:\n{learnt}", flush=True)
                self._known[module] = None if isinstance(learnt, str) else learnt
            return self._known[module]


def _chosen(names: list[str], sample: int, seed: int) -> list[Mutant]:
    found = [mutant for module in names or CORE for mutant in mutants_of(module)]
    random.Random(seed).shuffle(found)
    return sorted(found[:sample], key=lambda mutant: (mutant.module, mutant.line, mutant.column))


def _again(name: str) -> int:
    """One mutant by its name, and what its tests print."""
    mutant = next((other for other in mutants_of(name.partition(":")[0]) if other.name == name), None)
    if mutant is None:
        print(f"there is no mutant {name} (any more)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        survived, output = Copy(Path(folder)).survives(mutant, Knowledge({}, 600))
    print(f"{output}\n{'SURVIVED' if survived else 'killed'} {mutant}")
    return int(survived)


def main() -> int:
    """0 when all were killed; the survivors are listed at the end."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.strength.mutants", description=str(__doc__).partition("\n")[0]
    )
    parser.add_argument("--sample", type=int, default=300, help="how many, at random (300)")
    parser.add_argument("--all", action="store_true", help="no sample: every one there is")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("modules", nargs="*", metavar="room/module", help="in place of the core; or one mutant's name")
    options = parser.parse_args()
    if any(":" in name for name in options.modules):
        return max(_again(name) for name in options.modules)
    trial = Trial(_chosen(options.modules, sys.maxsize if options.all else options.sample, options.seed))
    threads = [threading.Thread(target=trial.work) for _ in range(options.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"\n{trial.tried - len(trial.survivors)} of {trial.tried} killed; survivors:")
    for mutant in trial.survivors:
        print(f"  {mutant}")
    return bool(trial.survivors or trial.broken)


if __name__ == "__main__":
    sys.exit(main())
