"""Whether token weights find the tokens that decide the reward, where the kind of each token is known."""
