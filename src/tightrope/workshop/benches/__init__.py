"""Where a bundle is put to the test: a worker process over standard input and output, here or anywhere else."""
