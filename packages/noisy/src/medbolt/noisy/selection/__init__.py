"""Sample selection: which samples of a batch to learn from, with one network or two, and how good the choice was."""
