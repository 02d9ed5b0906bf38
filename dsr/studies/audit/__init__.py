"""What a set, and models trained on it, leak; how robust and fair they are."""
