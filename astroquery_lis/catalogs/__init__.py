"""Rows of the catalogue and tables of bricks and exposures, from whichever source answers."""
