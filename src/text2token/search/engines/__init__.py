"""Engines keep the vectors of documents and rank documents in one field."""
