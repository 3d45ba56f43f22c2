"""Pipeline specs: their JSON, read as strictly as the Pachyderm server does."""
