"""The whole loop with simulated people: they act over HTTP as browsers do, real workers do the rest, the result is measured."""
