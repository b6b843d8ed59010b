"""The command line `kubectl vectorindex`: what people see of a VectorIndex, and what they ask of it."""
