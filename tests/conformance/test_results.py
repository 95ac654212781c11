"""What counts as a failure and as a difference in wstest's results: needs neither wstest nor a network."""

from __future__ import annotations

import json
import tempfile
import unittest
from pathlib import Path

from tests.conformance import __main__, results

OK = ("OK", "OK")


class TestResults(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def test_better_worse_missing_and_new_are_all_differences(self) -> None:
        pinned = {"1.1": OK, "2.10": OK, "2.9": ("NON-STRICT", "OK"), "3.1": OK}
        found = {"1.1": OK, "2.10": ("FAILED", "OK"), "2.9": OK, "4.1": OK}
        self.assertEqual(results.compare(pinned, found), ["2.9", "2.10", "3.1", "4.1"])

    def test_where_two_results_are_pinned_either_will_do_and_an_update_keeps_both(self) -> None:
        pinned = {"3.3": ("OK|NON-STRICT", "OK"), "3.4": ("OK|NON-STRICT", "OK")}
        found = {"3.3": ("NON-STRICT", "OK"), "3.4": ("INFORMATIONAL", "OK")}
        self.assertEqual(results.compare(pinned, found), ["3.4"])
        self.assertEqual(results.failed(pinned), [])
        self.assertEqual(results.updated(pinned, found), {"3.3": pinned["3.3"], "3.4": found["3.4"]})

    def test_a_bad_close_is_a_failure_though_the_behavior_was_good(self) -> None:
        found = {"1.1": OK, "1.2": ("OK", "UNCLEAN"), "1.3": ("FAILED", "OK"), "1.4": ("UNIMPLEMENTED", "OK")}
        self.assertEqual(results.failed(found), ["1.2", "1.3"])
        expected = "4 cases: OK 1, NON-STRICT 0, INFORMATIONAL 0, UNIMPLEMENTED 1, FAILED 2"
        self.assertEqual(results.counts(found), expected)

    def test_patterns_select_what_wstest_selects(self) -> None:
        for case, patterns, selected in (
            ("1.1.1", ["1.*"], True),
            ("12.1.1", ["1.*"], False),
            ("9.1.1", ["9.1.1"], True),
            ("9.1.10", ["9.1.1"], False),
            ("7.1.1", ["*"], True),
            ("5.1", ["1.*", "5.*"], True),
        ):
            with self.subTest(case=case, patterns=patterns):
                self.assertIs(results.matches(case, patterns), selected)

    def test_what_is_saved_is_loaded_again_and_has_a_line_for_each_case(self) -> None:
        pinned = {"server": {"10.1": OK, "9.1": ("NON-STRICT", "OK")}, "client": {"9.1": OK}}
        path = self.directory / "expected.json"
        results.save(path, pinned)
        self.assertEqual(results.load(path), pinned)
        self.assertIn('  "9.1": ["NON-STRICT", "OK"],\n  "10.1": ["OK", "OK"]\n', path.read_text())

    def test_reports_are_read_for_one_agent_and_missing_ones_are_no_results(self) -> None:
        self.assertEqual(results.read(self.directory, "a"), {})
        case = {"behavior": "OK", "behaviorClose": "UNCLEAN", "duration": 1}
        (self.directory / "index.json").write_text(json.dumps({"a": {"10.1": case, "9.1": case}, "b": {}}))
        self.assertEqual(
            list(results.read(self.directory, "a").items()), [("9.1", ("OK", "UNCLEAN")), ("10.1", ("OK", "UNCLEAN"))]
        )
        self.assertEqual(results.read(self.directory, "b"), {})

    def test_the_pinned_results_are_complete_and_hold_no_failure(self) -> None:
        pinned = results.load(__main__.EXPECTED)
        self.assertEqual(sorted(pinned), ["client", "server"])
        for role, cases in pinned.items():
            with self.subTest(role=role):
                self.assertEqual(len(cases), 517)
                self.assertEqual(results.failed(cases), [])


if __name__ == "__main__":
    unittest.main()
