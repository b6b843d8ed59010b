"""What the indexer costs, as ratios to a limit or to the naive way, measured side by side in one run; see docs/benchmarks.md."""
