"""The recipe of the embedded model: scenes, pictures, captions, training and evaluation; not shipped with the extension."""
