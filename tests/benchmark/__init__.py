"""The benchmark: ``python -m tests.benchmark`` (``--quick`` for the headline rows in about a minute).

Every contender runs in a process of its own and is driven by one neutral load generator that is not our
client (``load.c``, or ``load_picows`` where there is no C compiler). Only ratios within one run mean
anything: contenders take turns A B C A B C, a ratio is formed within each round, and what is reported is the
median over the rounds.

================== ===================================================================================
``__main__``       command line; runs the rows, contenders taking turns
``rows``           what is measured and which target it has to meet
``measures``       how one figure is measured
``trees``          two checkouts of sync_ws against each other (``--quick --against PATH``)
``contenders``     who takes part
``servers``        the server contenders, each as a small child process
``clients``        the client contenders, likewise
``generator``      builds and runs the load generator
``processes``      child processes: pinned, watched, never left behind
``machine``        the description of the machine that goes with the figures
``report``         medians, ratios, verdicts; the table in text and in Markdown
``chart``          the chart, an SVG written by hand
================== ===================================================================================

Nothing here is a unit test, and no unit test asserts a time.
"""
