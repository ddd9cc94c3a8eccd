"""Between HTTP and the services: sessions, sign-in, rendering, errors, headers."""
