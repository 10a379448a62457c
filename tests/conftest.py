"""What all tests share."""

from hypothesis import settings

# No deadline: what is timed here is a shared machine's disk, not the code.
settings.register_profile("edi", deadline=None)
settings.load_profile("edi")
