"""Token targets: builders, and their store on disk."""
