"""The recipe of the embedded model, from scenes to evaluation; not shipped with the extension."""
