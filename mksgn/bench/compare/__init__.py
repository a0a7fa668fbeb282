"""Two runs side by side, and bounds on their differences."""
