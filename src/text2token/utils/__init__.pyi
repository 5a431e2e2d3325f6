from .errors import UserError as UserError
