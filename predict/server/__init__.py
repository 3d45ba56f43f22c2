"""Captions over HTTP: one model, many clients, pictures computed in batches."""
