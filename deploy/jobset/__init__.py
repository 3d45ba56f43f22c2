"""Distributed training on Kubernetes: a JobSet launched, followed, its model brought, deleted."""
