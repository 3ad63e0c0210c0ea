"""The arithmetic of pictures: pure functions on numpy arrays, with Pillow and without torch."""
