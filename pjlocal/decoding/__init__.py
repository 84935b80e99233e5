"""The paper's algorithm, which turns two views' distributions into one text.  It uses NumPy alone: no model, file or
terminal."""
