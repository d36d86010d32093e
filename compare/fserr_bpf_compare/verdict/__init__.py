"""What a cell means: levels, tolerances, outcomes, and how people are shown them."""
