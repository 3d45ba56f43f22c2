"""What the demo, tests and benchmarks share: local webs of pictures, and a Pachyderm in memory."""
