"""What the server of workers imports last: what all need, and interrupts reach who is forked."""

import signal

from .._locks import make_dithers

make_dithers()
# One that came while it loaded is dropped.
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
signal.signal(signal.SIGINT, signal.default_int_handler)
