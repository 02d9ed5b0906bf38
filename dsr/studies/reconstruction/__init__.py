"""From a trained network to its training images."""
