"""The sizes that networks take."""

MULTIPLE = 32  # the deepest stride of the backbones
