"""Procedural fundus photographs whose every truth is known: :class:`~medbolt.core.synthetic.fundus.SyntheticFundus`."""
