"""DivideMix: divide samples by a mixture fitted to their losses, then learn semi-supervised."""
