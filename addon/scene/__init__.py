"""What Blender's scene gives and takes: captures, masks, images, the mannequin."""
