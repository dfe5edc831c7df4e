"""Predicts kicks in many row groups of Parquet, here or on many machines, and takes a stopped run up again.

    files -> plan.py: a partition a row group -> an engine asks scoring.py for each -> a part of the output
                                                                      manifest.py: which parts are done

`places.py` reads and writes files and objects; `engines.py` works in this process, `dask_engine.py` on a
cluster. What is done with a partition is the same code wherever it is done.
"""
