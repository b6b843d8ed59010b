"""The VectorIndex operator: from resources to replicas, and from what they prove to status."""
