"""The ingestion service: the engine of `capstan ingest` behind HTTP, its jobs durable."""
