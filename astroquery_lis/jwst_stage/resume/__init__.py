"""What was done and with what, so that it is done again only where something changed."""
