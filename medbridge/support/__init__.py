"""What every folder may use: threads, processes, atomic writes, printed tables, checked settings."""
