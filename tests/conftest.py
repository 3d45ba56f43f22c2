"""What holds for all tests."""

import signal

from hypothesis import settings

# A shell that starts tests in the background has SIGINT ignored by them and by what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A timing is no test: on a busy machine any example may take long.
settings.register_profile("capstan", deadline=None)
settings.load_profile("capstan")
