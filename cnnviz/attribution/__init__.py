"""Why the class came out: attributions, how far to believe them, methods compared."""
