"""Where the pipelines run: on this machine, on a Pachyderm, on a Kubernetes cluster."""
