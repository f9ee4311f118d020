"""How a run ends early that is at no fault: by a mistake a user can mend, or because it was told to."""


class UserError(Exception):
    """A mistake of the user's: a bad row, a wrong option, a model that does not fit.

    The message is one that a person can act on: it names the place (file, line, field or option), what is wrong and the
    remedy. The console scripts print it without a traceback and exit with status 2.
    """


class Preempted(Exception):
    """The run was told to stop, and has saved what is needed to go on."""
