"""The rules. Every write passes here; no HTTP, no HTML, no SQL; nothing commits."""
