"""A real Kubernetes on this machine: one node in namespaces of its own, or only the control plane, and the images that run there.

Standard library only, because it runs before any virtual environment exists. Importing it does nothing.
"""
