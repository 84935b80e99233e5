"""The paper: how two views' distributions become one text.  NumPy alone: no model, no file, no terminal."""
