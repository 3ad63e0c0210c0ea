"""The human figure that the mannequin and the training pictures are made from; not part of the extension's zip."""
