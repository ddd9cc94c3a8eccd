"""What happens to a file before anything of it is stored: read, given one shape, looked at. Pure: no database, no web.

`containers` reads bytes into rows, `shapes` turns rows into records, `likeness`, `pii`, `language` and `categories` look at
texts.
Heavy libraries (numpy, pyarrow) are imported inside functions: the pages import this package too.
"""
