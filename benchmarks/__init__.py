"""The simulated web, load and speed benchmarks."""
