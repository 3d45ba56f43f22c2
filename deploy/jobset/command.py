"""Train on several nodes of a Kubernetes cluster, as a JobSet.

Copies --input to a volume that this pod and the workers share, makes the JobSet from --template,
follows it (states, restarts, worker 0's log), copies the model to --output and deletes the JobSet:
also when the training fails, and when this program is stopped or killed.

    capstan launch --input /pfs/consolidate --output /pfs/out --volume /training -- capstan train

What comes after -- is the workers' command, to which --input and --output on the volume are added;
without it, the template's. A launch of the same name takes up a JobSet that is there already, and
one that failed or was stopped goes on from its last checkpoint: its folder on the volume is removed
only after success.
"""

import argparse
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from capstan.deploy.jobset.jobset import (
    INPUT,
    OUTPUT,
    Json,
    Launch,
    container_of,
    mounts,
    read_template,
    render,
)
from capstan.errors import SettingError
from capstan.files import input_directory, output_directory
from capstan.train.dataset import fingerprint
from capstan.train.workers import terminable

if TYPE_CHECKING:
    from capstan.deploy.jobset.api import Api

logger = logging.getLogger(__name__)

JOB_ID = "PACH_JOB_ID"  # Pachyderm's, in every worker
PATIENCE = 120.0
SHORT = 12  # letters of an input's fingerprint


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `capstan launch`."""
    parser.add_argument("--input", type=Path, required=True, help="consolidated shards")
    parser.add_argument("--output", type=Path, required=True, help="where the model goes")
    parser.add_argument(
        "--volume",
        type=Path,
        required=True,
        metavar="DIR",
        help="where this pod and the workers have the volume that they share; an --input that is "
        "on it is not copied",
    )
    parser.add_argument(
        "--template",
        type=Path,
        required=True,
        metavar="YAML",
        help="JobSet to start from, as `kubectl kustomize deploy/kubernetes/base/jobset` prints it",
    )
    parser.add_argument(
        "--name", help=f"of the JobSet; else train- and the job's id that {JOB_ID} gives"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="pods; else the template's")
    parser.add_argument("--image", help="of the workers; else the template's")
    parser.add_argument("--queue", help="Kueue's LocalQueue to wait in; else the template's")
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        metavar="SECONDS",
        help="how long a call is tried again while the Kubernetes API does not answer",
    )
    parser.add_argument(
        "--show", action="store_true", help="print the JobSet as YAML, and do nothing else"
    )
    parser.add_argument("command", nargs="*", metavar="-- COMMAND", help="else the template's")


def run(arguments: argparse.Namespace) -> None:
    """Launch, follow, bring the model and clean up."""
    launch, folder = _launch(arguments)
    jobset = _rendered(arguments, launch)
    if arguments.show:
        import yaml

        sys.stdout.write(yaml.safe_dump(jobset, sort_keys=False, width=100))
        return
    from capstan.deploy.jobset.api import Api
    from capstan.deploy.jobset.volume import lay_in, take_out

    output = output_directory(arguments.output)
    output_directory(folder, "--volume")
    api = Api(arguments.patience)
    if launch.input.parent == folder:
        lay_in(arguments.input, launch.input)
    with terminable():
        _train(api, jobset)
    take_out(launch.output, output)
    shutil.rmtree(folder, ignore_errors=True)


def _launch(arguments: argparse.Namespace) -> tuple[Launch, Path]:
    """What to launch, and its folder on the volume."""
    job = os.environ.get(JOB_ID)
    name = arguments.name or (f"train-{job}" if job else None)
    if name is None:
        raise SettingError(f"no name for the JobSet: give --name ({JOB_ID} is not set)")
    source, folder = input_directory(arguments.input).resolve(), arguments.volume / name
    if source.is_relative_to(folder.resolve()):
        raise SettingError(f"--input {source}: {folder} is this launch's own; give another --name")
    # Named for what is in it: a copy that an earlier launch left may be of something else.
    copy = folder / f"{INPUT}-{fingerprint(source)[:SHORT]}"
    return Launch(
        name,
        arguments.input if source.is_relative_to(arguments.volume.resolve()) else copy,
        folder / OUTPUT,
        arguments.command,
        arguments.workers,
        arguments.image,
        arguments.queue,
    ), folder


def _rendered(arguments: argparse.Namespace, launch: Launch) -> Json:
    template = read_template(arguments.template)
    if arguments.volume not in mounts(template):
        raise SettingError(
            f"--volume {arguments.volume}: the workers of {arguments.template} have no persistent "
            f"volume there, but at: {', '.join(map(str, mounts(template))) or 'nowhere'}"
        )
    return render(template, launch)


def _train(api: "Api", jobset: Json) -> None:
    """Run a JobSet to its end, and leave nothing of it."""
    from capstan.deploy.jobset.follow import Following
    from capstan.deploy.jobset.guardian import guarded
    from capstan.deploy.jobset.start import start

    name = jobset["metadata"]["name"]
    with guarded(jobset) as dismiss:
        start(api, jobset)
        try:
            Following(api, name, container_of(jobset)["name"]).to_the_end()
        finally:
            api.delete(name)
            dismiss()
