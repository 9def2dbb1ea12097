"""The vocabulary in parts: the mergeable state of the statistics, and the tiles it is computed from."""
