"""Transition matrices that nobody has to know: estimated from predictions, or learnt with the network."""
