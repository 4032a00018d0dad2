"""What the server of workers imports last: interrupts reach those whom others let it fork."""

import signal

# One that came while it loaded is dropped.
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
signal.signal(signal.SIGINT, signal.default_int_handler)
