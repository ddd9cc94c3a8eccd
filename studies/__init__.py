"""What the methods teach, each study one command: its figures and its picture lie in docs/studies."""
