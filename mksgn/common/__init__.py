"""What all stages share: errors, checks of numbers, atomic files, and the terminal."""
