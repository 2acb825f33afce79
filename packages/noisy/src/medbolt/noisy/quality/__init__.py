"""Which labels are wrong: statistics of training, confident learning, cross-validation, and a report."""
