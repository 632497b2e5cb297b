"""What an operator does with an application's history: bring it in, take it out, compare it.

The other jobs: erase a person (`erase`), make a visitor a user (`promote`), let old periods go
(`prune`), copy servers (`copying`), check whether all is well (`doctor`).

There is one module for each job. They share `runs` (long runs that survive outages and can be
resumed), `tables` (a model's rows as marks), `moments` (their times on the application's clock) and
`flags`.
"""
