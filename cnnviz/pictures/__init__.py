"""Image files in, numbers to colours, sheets and their records out."""
