"""A plan as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from capstan.report.plan.cluster import StageRun
from capstan.report.plan.forecast import WHOLE, Forecast
from capstan.report.plan.what_if import Change

FORMAT, VERSION = "capstan-plan", 1


def record(plan: Forecast, changes: Sequence[Change]) -> dict[str, Any]:
    """All that a plan says, in seconds, bytes and rows."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "scenario": asdict(plan.scenario),
        "seconds": plan.seconds,
        "span": asdict(plan.spans[WHOLE]),
        "stages": [_stage(plan, ran) for ran in plan.course],
        "bottleneck": plan.bottleneck.stage.name,
        "ends": plan.ingested.ends(),
        "busy": dict(plan.busy),
        "needs": [asdict(need) for need in plan.needs],
        "changes": [asdict(change) | {"saved": change.saved} for change in changes],
        "web": {"source": plan.web.source, "guess": plan.web.guess},
        "rates": {name: asdict(rate) for name, rate in plan.rates.known.items()},
    }


def _stage(plan: Forecast, ran: StageRun) -> dict[str, Any]:
    return {
        "name": ran.stage.name,
        "begin": ran.begin,
        "seconds": ran.seconds,
        "span": asdict(plan.spans[ran.stage.name]),
        "unit": ran.stage.unit,
        "amount": ran.rows,
        "datums": ran.stage.datums,
        "workers": ran.stage.workers,
        "shares": ran.shares,
        "why": plan.why(ran),
    }
