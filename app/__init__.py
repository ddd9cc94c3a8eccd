"""The web and domain half of Preferable. Importing it never imports torch, transformers or `workers`."""
