"""Small networks of our own that subclass a diffusers or torch class."""
