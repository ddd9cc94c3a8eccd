"""Celery tasks: claim through a service, call the learning half, save through a service."""
