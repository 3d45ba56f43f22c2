"""TSV rows straight to feature shards: the pictures never touch the disk."""
