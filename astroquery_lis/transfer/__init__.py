"""How bytes move: HTTP client, ranges, downloads, mirrors, cache.  Knows no astronomy."""
