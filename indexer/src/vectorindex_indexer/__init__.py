"""The VectorIndex indexer: one replica that builds, proves, repairs and serves an index."""
