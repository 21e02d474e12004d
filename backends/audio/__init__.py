"""The audio tab's methods, one file each."""
