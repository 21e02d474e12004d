"""Masked diffusion language models: a canvas of tokens, filled in over a few evaluations of the network."""
