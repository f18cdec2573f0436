"""What `hive demo` starts from: a small repository with a failing test, and the answers of a scripted model.

Data only, shipped with the package: ``repository.yaml`` (files by path) and ``answers.yaml``.
"""
