"""Model files: find them, read their headers, download them, and estimate their memory.  Nothing here loads a model."""
