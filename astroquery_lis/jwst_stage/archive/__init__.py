"""JWST files at MAST: search and download."""
