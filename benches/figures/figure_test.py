"""When a bound is met, and what a table says of it."""

import math
import unittest

from figure import Figure, at_least, at_most, bootstrap, ratio, ratio_of_all


class FigureTest(unittest.TestCase):
    def test_a_bound_is_missed_only_if_the_whole_interval_lies_beyond_it(self):
        for sense, low, high, verdict in [
            ("<=", 0.8, 0.9, "met"),
            ("<=", 0.9, 1.1, "met"),
            ("<=", 1.1, 1.2, "missed"),
            (">=", 1.1, 1.2, "met"),
            (">=", 0.9, 1.1, "met"),
            (">=", 0.8, 0.9, "missed"),
        ]:
            with self.subTest(sense=sense, low=low, high=high):
                figure = Figure("a", "x", sense, 1.0, (low + high) / 2, low, high)
                self.assertEqual(figure.verdict(), verdict)

    def test_what_could_not_be_measured_misses_its_bound(self):
        self.assertEqual(at_most(1, "B", "a", [0.5, None]).verdict(), "missed")
        self.assertEqual(at_least(1, "B", "a", []).verdict(), "missed")
        self.assertEqual(ratio("<=", 1, "a", [0.0], [0.0]).verdict(), "missed")

    def test_a_figure_without_a_bound_is_only_shown(self):
        figure = ratio_of_all(">=", None, "a", [4.0, 6.0], [2.0])
        self.assertEqual((figure.verdict(), figure.shown_bound()), ("shown", "none"))
        self.assertEqual((figure.value, figure.low, figure.high), (2.5, 2.0, 3.0))

    def test_rounds_are_compared_pair_by_pair(self):
        figure = ratio("<=", 1, "a", [2.0, 30.0, 6.0], [1.0, 15.0, 3.0])
        self.assertEqual((figure.value, figure.low, figure.high), (2.0, 2.0, 2.0))

    def test_an_interval_holds_the_median_and_narrows_with_rounds(self):
        few = [0.8, 1.0, 1.2, 0.9, 1.1]
        low, high = bootstrap(few)
        self.assertLess(low, 1.0)
        self.assertGreater(high, 1.0)
        self.assertEqual((low, high), bootstrap(few))
        narrow_low, narrow_high = bootstrap(few * 10)
        self.assertLess(narrow_high - narrow_low, high - low)

    def test_a_line_says_value_interval_and_bound(self):
        figure = at_most(150, "B", "a", [100.0, 120.5, 99.0])
        self.assertEqual(figure.shown_value(), "100 B (99 to 120)")
        self.assertEqual(figure.shown_bound(), "≤ 150 B")
        self.assertEqual(at_most(0, "", "a", [0]).shown_value(), "0")
        self.assertTrue(math.isclose(Figure.from_json(figure.to_json()).value, 100.0))
