"""What comes in, and the shapes of settings and of the JSON API."""
