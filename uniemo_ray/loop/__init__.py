"""The method from start to end: which steps a job has, what each reads, and what is checked before."""
