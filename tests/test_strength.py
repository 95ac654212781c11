"""The tools that tell how strong the tests are: whose tests are whose, and that a mutant is a change and no worse."""

from __future__ import annotations

import ast
import unittest

from tests.strength.mutants import CORE, JUDGED, judged, mutants_of
from tests.strength.own import PACKAGE, ROOT, modules, own_tests


class OwnTest(unittest.TestCase):
    def test_every_module_has_its_own_tests_and_shares_none(self) -> None:
        owned = [name for module in modules() for name in own_tests(module)]
        self.assertEqual(len(owned), len(set(owned)))
        for module in modules():
            with self.subTest(module):
                room, _, name = module.rpartition("/")
                first = ".".join(filter(None, ("tests", room, f"test_{name.strip('_')}")))
                self.assertEqual(own_tests(module)[0], first)

    def test_an_aspect_belongs_to_the_module_of_the_longest_name(self) -> None:
        self.assertIn("tests.channel.test_channel_pair", own_tests("channel/channel"))
        self.assertNotIn("tests.client.test_client_reconnect", own_tests("client/state"))

    def test_every_test_file_of_a_room_names_its_module(self) -> None:
        owned = {name for module in modules() for name in own_tests(module)}
        for room in sorted({module.rpartition("/")[0] for module in modules()} - {"", "testing"}):
            for path in (ROOT / "tests" / room).glob("test_*.py"):
                with self.subTest(str(path)):
                    self.assertIn(f"tests.{room}.{path.stem}", owned)


class MutantsTest(unittest.TestCase):
    def test_each_is_another_program_and_one_that_can_be_run(self) -> None:
        for module in CORE[::4]:
            source = (PACKAGE / f"{module}.py").read_bytes()
            before = ast.dump(ast.parse(source))
            found = mutants_of(module)
            self.assertGreater(len(found), 30)
            self.assertEqual(len({mutant.name for mutant in found}), len(found))
            for mutant in found[:: len(found) // 20]:
                with self.subTest(str(mutant)):
                    changed = source[: mutant.start] + mutant.new.encode() + source[mutant.end :]
                    self.assertEqual(source[mutant.start : mutant.end].decode(), mutant.old)
                    self.assertNotEqual(ast.dump(ast.parse(changed)), before)

    def test_what_was_judged_is_there_and_has_a_reason(self) -> None:
        for path in JUDGED.glob("*.txt"):
            module = path.stem.replace(".", "/")
            source = {line.strip() for line in (PACKAGE / f"{module}.py").read_text(encoding="utf-8").splitlines()}
            for (line, change), reason in judged(module).items():
                with self.subTest(path.name, line=line):
                    self.assertIn(line, source)
                    self.assertIn(" -> ", change)
                    self.assertGreater(len(reason), 10)


if __name__ == "__main__":
    unittest.main()
