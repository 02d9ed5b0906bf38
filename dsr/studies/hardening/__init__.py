"""Adversarial training on small sets, and the bound of covers."""
