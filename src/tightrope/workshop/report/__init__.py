"""What was found, as a terminal table, JSON and one self-contained page."""
