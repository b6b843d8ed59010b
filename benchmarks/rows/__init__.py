"""One module for each row of the benchmark: what is measured, against what, and which bar it must keep."""
