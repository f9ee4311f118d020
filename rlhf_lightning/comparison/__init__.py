"""The comparison of runs: rows of like runs, what differs between them for certain, the table, the page, the gate."""
