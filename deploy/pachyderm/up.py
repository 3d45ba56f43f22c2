"""Make the repos and pipelines of the specs on a Pachyderm, or update those that differ.

Running it again changes nothing that is as the specs say. What would be changed is shown as a diff
first; --dry-run goes no further. Pipelines that no spec names are left alone. A service, which runs
until it is deleted, is made only if it is named: `capstan up ingest-service`.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from capstan.deploy.pachyderm import adapt
from capstan.deploy.specs import folder
from capstan.errors import SettingError
from capstan.pachyderm import connection

if TYPE_CHECKING:
    from capstan.deploy.specs.read import Spec

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `capstan up`."""
    parser.add_argument(
        "names", nargs="*", metavar="PIPELINE", help="which to make; else all that are no service"
    )
    folder.add_flag(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="show what would be done, and let the server check it",
    )
    parser.add_argument(
        "--reprocess", action="store_true", help="have updated pipelines do all their datums again"
    )
    adapt.add_flags(parser)
    connection.add_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Make and update, in the order of the data."""
    from capstan.deploy.pachyderm.specs import input_repos, steps
    from capstan.deploy.specs.read import read_specs
    from capstan.pachyderm.connect import open_server

    every, dry_run = read_specs(arguments.pipelines), arguments.dry_run
    specs = adapt.adapt(chosen(every, arguments.names), adapt.changes(arguments))
    others = {spec.name for spec in every}
    would = "would be " if dry_run else ""
    with open_server(connection.find(arguments)) as server:
        present = set(server.repos())
        for repo in (repo for repo in input_repos(specs) if repo not in others):
            if repo not in present and not dry_run:
                server.create_repo(repo)
            logger.info("repo %s: %s", repo, "there" if repo in present else f"{would}made")
        for step in steps(specs, server.pipelines(), server.project):
            if step.diff and not step.new:
                sys.stdout.write(step.diff + "\n")
                sys.stdout.flush()
            if step.diff:
                server.put_pipeline(
                    step.json,
                    update=not step.new,
                    reprocess=arguments.reprocess and not step.new,
                    dry_run=dry_run,
                )
            done = f"{would}made" if step.new else f"{would}updated" if step.diff else "unchanged"
            logger.info("pipeline %s: %s", step.name, done)


def chosen(specs: Sequence["Spec"], names: Sequence[str]) -> list["Spec"]:
    """The specs that are named, else those whose pipelines come to an end."""
    known = {spec.name: spec for spec in specs}
    if unknown := [name for name in names if name not in known]:
        raise SettingError(f"{unknown[0]}: no such pipeline; there are {', '.join(sorted(known))}")
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    for spec in (spec for spec in specs if spec.forever):
        logger.info("pipeline %s: a service; `capstan up %s` starts it", spec.name, spec.name)
    return [spec for spec in specs if not spec.forever]
