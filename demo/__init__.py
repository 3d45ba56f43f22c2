"""The offline demo: generated pictures with captions that can be checked word for word."""
