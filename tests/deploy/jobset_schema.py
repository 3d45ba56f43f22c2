"""The fields of a JobSet that its API, jobset.x-k8s.io/v1alpha2, has, as a JSON schema.

By its reference, https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2/, in our own words. The
Job in it is left to the schema of batch/v1. What CAPSTAN_TEST_JOBSET_CRD names, the project's own
CustomResourceDefinition, is held to as well.
"""

from collections.abc import Sequence
from typing import Any

Schema = dict[str, Any]


def strict(required: Sequence[str] = (), **properties: Schema) -> Schema:
    """An object of these fields and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
STRINGS: Schema = {"type": "array", "items": STRING}
ANYTHING: Schema = {"type": "object"}

LABEL: Schema = {"type": "string", "pattern": "^[a-z]([a-z0-9-]*[a-z0-9])?$", "maxLength": 63}
JOB_FAILURES = [
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "FailedIndexes",
    "MaxFailedIndexesExceeded",
    "PodFailurePolicy",
]
RULE = strict(
    ["action"],
    name={
        "type": "string",
        "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        "maxLength": 128,
    },
    action={
        "enum": [
            "FailJobSet",
            "RestartJobSet",
            "RestartJobSetAndIgnoreMaxRestarts",
            "RestartJob",
            "RestartJobAndIgnoreMaxRestarts",
        ]
    },
    onJobFailureReasons={"type": "array", "items": {"enum": JOB_FAILURES}, "uniqueItems": True},
    onJobFailureMessagePatterns={"type": "array", "items": STRING, "uniqueItems": True},
    targetReplicatedJobs=STRINGS,
)
JOBSET = strict(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=strict(["name"], name=LABEL, namespace=LABEL, labels=ANYTHING, annotations=ANYTHING),
    spec=strict(
        ["replicatedJobs"],
        replicatedJobs={
            "type": "array",
            "minItems": 1,
            "items": strict(
                ["name", "template"],
                name=LABEL,
                groupName=LABEL,
                replicas=COUNT,
                template=strict(["spec"], metadata=ANYTHING, spec=ANYTHING),
                dependsOn={"type": "array"},
            ),
        },
        network=strict(
            enableDNSHostnames=BOOLEAN, subdomain=LABEL, publishNotReadyAddresses=BOOLEAN
        ),
        successPolicy=strict(
            ["operator"], operator={"enum": ["All", "Any"]}, targetReplicatedJobs=STRINGS
        ),
        failurePolicy=strict(
            maxRestarts=COUNT,
            restartStrategy={"enum": ["Recreate", "BlockingRecreate", "InPlaceRestart"]},
            rules={"type": "array", "items": RULE},
        ),
        suspend=BOOLEAN,
        coordinator=strict(["replicatedJob"], replicatedJob=STRING, jobIndex=COUNT, podIndex=COUNT),
        managedBy=STRING,
        ttlSecondsAfterFinished=COUNT,
    ),
)
