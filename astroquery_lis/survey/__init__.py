"""What the survey is: bricks, releases, file names, masks.  Pure: no network, no files."""
