"""Several parts together: processes, files, crashes, full disks."""
