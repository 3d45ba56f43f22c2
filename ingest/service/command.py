"""Download TSVs of captions and URLs as a service: jobs over HTTP, with a live page.

What `capstan ingest` does for a folder this does for jobs that clients submit, several at a time,
and goes on by itself after whatever befalls it. Shards of a job lie in DATA/jobs/ID/shards; with
--pachyderm-repo they also go to a repo of a Pachyderm, a batch of whole shards in one commit. Each
host is treated as by one `capstan ingest`, whichever jobs its rows are of.

In a pipeline on Pachyderm (a service, or beside one): --host 0.0.0.0 and --token-file a secret's
file; --data a volume that outlives the pod; --pachyderm-repo, and the address where pachd is, which
PACHD_ADDRESS may give too.
"""

import argparse

from capstan.ingest.service.config import ServiceSettings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    ServiceSettings.configure(parser)


def run(arguments: argparse.Namespace) -> None:
    """Serve until told to stop."""
    settings = ServiceSettings.from_arguments(arguments)
    from capstan.ingest.service.run import run

    run(settings)
