"""What speedy_utils costs beside the usual tools. ``python -m benchmarks`` measures, and writes tables."""
