"""Text-to-image methods, one file each; tasks.py says what is asked, sampling.py holds the shared loop."""
