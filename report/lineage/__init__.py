"""Where rows, captions and models come from, each hop held against the hashes on record."""
