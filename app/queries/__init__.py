"""SQL. Functions start with get, find, list, count, page, claim or insert, and take the project first."""
