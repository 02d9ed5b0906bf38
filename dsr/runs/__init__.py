"""What every command needs: flags, jobs, clocks and records."""
