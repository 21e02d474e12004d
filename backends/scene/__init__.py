"""Methods that make and edit 3D objects; one method = one file."""
