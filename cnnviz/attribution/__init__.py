"""Attribution: maps of what a class's score is due to, how far to believe them, methods compared."""
