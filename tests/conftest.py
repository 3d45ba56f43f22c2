"""What holds for all tests."""

import signal

# A shell that starts tests in the background has SIGINT ignored by them and by what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
