"""The pipelines on one machine: specs, datums, processes, lineage."""
