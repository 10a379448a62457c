"""What all tests share."""

import signal

from hypothesis import settings

# A shell that starts the tests in the background has it ignored, and so would every process that is to get a Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: what is timed here is a shared machine's disk, not the code.
settings.register_profile("edi", deadline=None)
settings.load_profile("edi")
