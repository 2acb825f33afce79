"""Methods between epochs and optimizer steps: masked gradients, and criteria that follow a schedule."""
