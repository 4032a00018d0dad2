"""From bytes to HDULists and tables."""
