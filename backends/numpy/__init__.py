"""numpy, and torch on a CPU: blocks of logits that fit a cache, computed in place."""
