"""Who makes the jobs of a plan: workers of this machine, Ray or Slurm."""
