// Distributions and shares of credit over many completions.
