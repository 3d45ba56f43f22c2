"""What all stages share and nothing else: records, shards, the command, progress, specs."""
