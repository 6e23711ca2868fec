"""What is read in a browser: a gallery's pages, a report, the app."""
