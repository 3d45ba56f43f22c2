"""Delete the specs' pipelines from a Pachyderm, with all that they made. Asks first.

What was put in (rawdata, inpredict) stays, unless --data. Pipelines that no spec names stay, and
one of them that reads from a pipeline that is to go makes the server refuse.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from capstan.deploy.specs import folder
from capstan.errors import CapstanError, SettingError
from capstan.pachyderm import connection

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `capstan down`."""
    folder.add_flag(parser)
    parser.add_argument("--data", action="store_true", help="the repos of what was put in as well")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    connection.add_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Ask and delete, the last of the road first."""
    from capstan.deploy.pachyderm.order import in_order
    from capstan.deploy.pachyderm.specs import input_repos, reads
    from capstan.deploy.specs.read import read_specs
    from capstan.pachyderm.connect import open_server

    specs, target = read_specs(arguments.pipelines), connection.find(arguments)
    with open_server(target) as server:
        present = {pipeline.name for pipeline in server.pipelines()}
        pipelines = [name for name in reversed(in_order(reads(specs))) if name in present]
        here = set(server.repos())
        repos = [repo for repo in input_repos(specs) if repo in here] if arguments.data else []
        if not (pipelines or repos):
            logger.info("project %s: nothing of the specs is there", server.project)
            return
        if not arguments.yes:
            _ask(f"{target}, project {server.project}", pipelines, repos)
        for name in pipelines:
            server.delete_pipeline(name)
            logger.info("pipeline %s: deleted", name)
        for name in repos:
            server.delete_repo(name)
            logger.info("repo %s: deleted", name)


def _ask(place: str, pipelines: Sequence[str], repos: Sequence[str]) -> None:
    if not sys.stdin.isatty():
        raise SettingError("deleting asks first, and there is no terminal to ask on; give --yes")
    kinds = {"pipelines": pipelines, "repos": repos}
    what = [f"{kind} {', '.join(names)}" for kind, names in kinds.items() if names]
    sys.stderr.write(f"{place}: delete {' and '.join(what)}, with all they hold? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CapstanError("nothing was deleted")
