"""Human judgements: the event store, the page, conversion to training rows, analysis."""
