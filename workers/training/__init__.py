"""The learning half: loops and files. torch, transformers and disk; no database, no broker, no web."""
