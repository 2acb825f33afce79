"""Methods that remember what the network said of each training sample, and methods that mix samples."""
