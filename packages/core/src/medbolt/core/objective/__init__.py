"""How a method reaches somebody else's training step: objectives on the criterion a module already has."""
