"""Models: where they are, how they load, and the samplers, upscalers and settings around them."""
