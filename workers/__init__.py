"""Background work: Celery tasks over the services of `app`, and the learning half that runs from a shell."""
