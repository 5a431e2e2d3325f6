"""The one exception a user meets."""


class UserError(ValueError):
    """Something the user can mend: one sentence that names the thing and the way out.

    The command line prints the sentence and exits with code 2; Python callers may catch it as a ``ValueError``.
    """
