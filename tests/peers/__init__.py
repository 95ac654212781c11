"""Against other implementations, and what is wrong with the two packages underneath."""
