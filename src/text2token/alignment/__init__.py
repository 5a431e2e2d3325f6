"""What an embedder's vectors say in the vocabulary of its backbone."""
