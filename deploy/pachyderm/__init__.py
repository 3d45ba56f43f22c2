"""Capstan on a Pachyderm cluster: makes its pipelines, fills them, watches them, reads them."""
