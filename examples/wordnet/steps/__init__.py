"""The seven steps of the demo, each of which asserts what it shows. The end-to-end tests run the same steps on a cluster of their own."""
