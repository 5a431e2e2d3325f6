"""Files, locks, run folders, pages and figures: tools that do not depend on models."""
