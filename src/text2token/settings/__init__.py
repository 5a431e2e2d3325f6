"""Names and defaults of all settings; imports no torch, so that ``--help`` is fast."""
