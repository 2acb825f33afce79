"""Models of label noise, and a data module that applies them."""
