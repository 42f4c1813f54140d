"""What every suite needs: the environment card, interleaving, statistics, results as JSON, tables, child processes."""
