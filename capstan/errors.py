"""The errors a user can cause: one clear line and an exit status, never a traceback."""


class CapstanError(Exception):
    """Something the user can put right; the message names the thing and the cure."""

    exit_status = 1


class SettingError(CapstanError):
    """A flag, path or spec that cannot be used as given."""

    exit_status = 2


class DataError(CapstanError):
    """A file whose contents cannot be used: truncated, of another version, altered."""
