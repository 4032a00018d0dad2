"""The run of a plan: processes, schedule, verification, status."""
