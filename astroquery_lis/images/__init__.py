"""From the bytes of image files to cutouts: tiles, readers, grids, PSFs, files."""
