"""The steps, one module each; they never import each other."""
