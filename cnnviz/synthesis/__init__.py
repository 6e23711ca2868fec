"""What a filter looks for: images made by gradient ascent, and whether they succeeded."""
