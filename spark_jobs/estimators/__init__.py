"""The kinds of model, one module each; the module of that name is what `--estimator` chooses. They never import each other."""
