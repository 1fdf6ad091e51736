"""From a model file and a draft to a manifest: everything that publishing checks and fills in."""
