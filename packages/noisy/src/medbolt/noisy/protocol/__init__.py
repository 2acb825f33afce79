"""What LNMBench measures, and how."""
