"""The restoration rooms' methods, one file each: faces, enlarged pictures, cleaned photos, spectral cubes."""
