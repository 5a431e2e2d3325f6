"""What others do with the same backbone, to compare with."""
