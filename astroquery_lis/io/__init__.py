"""How bytes move and long jobs run: HTTP, ranges, cache, mirrors, journal.  Knows no astronomy."""
