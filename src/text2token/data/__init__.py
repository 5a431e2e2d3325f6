"""Texts, tables and scored pairs, read from files of any format."""
