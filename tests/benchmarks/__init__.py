"""The benchmarks: `python tests/benchmarks` from a clone. See docs/benchmarks.md."""
