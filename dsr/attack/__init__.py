"""Reconstruction attacks: what a network tells of its training images.

`release` is what the attacker gets, `ntk_limit`, `finite`, `first_layer`,
`published` and `kkt` are attacks, each with a `Config` and a `reconstruct(key,
released, config)`; `match`, `baselines` and `outliers` compare with the truth.
"""
