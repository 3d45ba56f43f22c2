"""Plan a job before it is run: how long, what it needs, what holds it up, what would help.

A simulation of all stages, fed by measured rates (`report/plan/rates.json`, or yours with
--rates) and by how rows of Conceptual Captions ended in 2019 (or with --web by what an ingestion of
your own saw). Rows of some chunks are simulated one by one and stand for all. Prints a summary;
--output draws it.
"""

import argparse
import json
import logging
import sys
from pathlib import Path

from capstan.errors import SettingError
from capstan.report.plan.scenario import Scenario

logger = logging.getLogger(__name__)
MOST_SEEDS = 1_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--output", type=Path, metavar="FILE", help="HTML page to draw the plan in")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    parser.add_argument(
        "--rates", type=Path, metavar="FILE", help='rates of yours as JSON, such as {"disk": 2e9}'
    )
    parser.add_argument(
        "--web",
        type=Path,
        metavar="PATH",
        help="a mix like report/plan/conceptual_captions_2019.json, or a folder of "
        "`capstan ingest --statistics`",
    )
    parser.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="lots of rows and hosts to try"
    )
    parser.add_argument(
        "--no-changes", action="store_true", help="do not try what changes would bring"
    )
    Scenario.configure(parser)


def run(arguments: argparse.Namespace) -> None:
    """Plan, print, draw."""
    from capstan.report.html import check_output
    from capstan.report.plan.forecast import make_plan
    from capstan.report.plan.formatting import text
    from capstan.report.plan.page import write_plan
    from capstan.report.plan.rates import read_rates, shipped_rates
    from capstan.report.plan.record import record
    from capstan.report.plan.web import SHIPPED, read_web
    from capstan.report.plan.what_if import try_changes

    if not 1 <= arguments.seeds <= MOST_SEEDS:
        raise SettingError(f"--seeds {arguments.seeds}: give 1 to {MOST_SEEDS:,}")
    if arguments.output:
        check_output(arguments.output)
    scenario, rates = Scenario.from_arguments(arguments), shipped_rates()
    if arguments.rates:
        rates = read_rates(arguments.rates, rates)
    web = read_web(arguments.web or SHIPPED)
    plan = make_plan(scenario, web, rates, arguments.seeds)
    changes = [] if arguments.no_changes else try_changes(plan)
    said = json.dumps(record(plan, changes), indent=2) if arguments.json else text(plan, changes)
    sys.stdout.write(said + "\n")
    if arguments.output:
        write_plan(plan, changes, arguments.output)
        logger.info("plan: %s", arguments.output.resolve().as_uri())
