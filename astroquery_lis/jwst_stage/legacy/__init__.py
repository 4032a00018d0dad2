"""JWST fields in the Legacy Surveys."""
