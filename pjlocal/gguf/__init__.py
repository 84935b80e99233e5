"""Model files: find them, read their headers, download them, and estimate their memory.  No model is loaded here."""
