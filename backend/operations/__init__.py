"""What can be made: one readable function a file, each from a request to pictures."""
