"""Settings for all tests."""

from hypothesis import settings

# An example that a busy machine held up for a moment is no wrong one; a test as a whole has other limits.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
