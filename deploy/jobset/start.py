"""Makes a training's JobSet, or takes up the one that an earlier launcher has left."""

import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from capstan.deploy.jobset.api import Api
from capstan.deploy.jobset.jobset import FINGERPRINT, Json, state_of
from capstan.errors import CapstanError, SettingError

logger = logging.getLogger(__name__)

POD_NAMES = ("POD_NAME", "PPS_POD_NAME")  # environment: the second is Pachyderm's
GONE_SECONDS = 600.0  # for the pods of a JobSet that is being deleted
LOOK_SECONDS = 1.0


def start(api: Api, jobset: Json) -> None:
    """Have a JobSet run that is owned by this pod, should we be in one, and so ends with it.

    One of the same name and spec is taken up, running or done. One that failed is made anew, once
    no pod of it is left: two chiefs would write to one folder. SettingError for one that runs with
    another spec.
    """
    name, owners = jobset["metadata"]["name"], _owners(api)
    mine = {**jobset, "metadata": {**jobset["metadata"], "ownerReferences": owners}}
    while not api.create(mine):
        there = api.get(name)
        if there is not None and _is_of_use(there, jobset):
            api.own(name, owners)
            logger.info("JobSet %s: is there already, taken up", name)
            return
        if there is not None:
            api.delete(name)
            _wait_until_gone(api, name)
    logger.info("JobSet %s: made", name)


def is_same(there: Json, jobset: Json) -> bool:
    """Whether a JobSet was launched with the same spec; defaults of the server do not count."""
    annotations = there["metadata"].get("annotations") or {}
    return bool(annotations.get(FINGERPRINT) == jobset["metadata"]["annotations"][FINGERPRINT])


def _is_of_use(there: Json, jobset: Json) -> bool:
    """Whether to go on with it; else it is to be deleted."""
    if there["metadata"].get("deletionTimestamp"):
        return False
    state = state_of(there)
    if is_same(there, jobset):
        return state.phase != "failed"
    if not state.is_over:
        name = there["metadata"]["name"]
        raise SettingError(
            f"JobSet {name} is {state.phase}, with another spec; give another --name, or delete it "
            f"(kubectl delete jobset {name})"
        )
    return False


def _owners(api: Api) -> list[Mapping[str, Any]]:
    """This pod as an owner; none outside of a cluster."""
    name = next((os.environ[each] for each in POD_NAMES if os.environ.get(each)), None)
    pod = None if name is None else api.pod(name)
    if pod is None:
        return []
    return [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod["metadata"]["uid"]}]


def _wait_until_gone(api: Api, name: str) -> None:
    logger.info("JobSet %s: waiting for the end of an earlier one", name)
    deadline = time.monotonic() + GONE_SECONDS
    while api.get(name) is not None:
        if time.monotonic() > deadline:
            raise CapstanError(
                f"JobSet {name} is being deleted, but its pods stay; see what holds them (kubectl "
                f"get pods), then run the same command again"
            )
        time.sleep(LOOK_SECONDS)
