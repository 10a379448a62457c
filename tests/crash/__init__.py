"""The crash suite: `python -m tests.crash --quick` or `--full` prints what the store survives.

Each row of its matrix is one fault, done to real processes that work on real sessions through the real store. After
every fault a fresh process resumes, another checks: every boundary that was acknowledged is there, nothing is doubled,
every session ends with the rows, files and state of a run that nothing disturbed, `doctor` agrees, and nothing is left
over.
"""
