"""The one exception for mistakes a user can mend."""


class UserError(Exception):
    """A mistake of the user's: a bad row, a wrong option, a model that does not fit.

    The message is one that a person can act on: it names the place (file, line, field or option), what is wrong and the
    remedy. The console scripts print it without a traceback and exit with status 2.
    """
