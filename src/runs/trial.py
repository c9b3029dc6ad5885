"""Files by which a run that is a trial of a search and the search talk to each other."""

REPORTS = "reports.jsonl"  # from the run: {"epoch": 3, "value": 0.5}, a line a validation
VERDICT = "verdict.json"  # from the search: {"epoch": 3, "prune": false}, of the newest report
