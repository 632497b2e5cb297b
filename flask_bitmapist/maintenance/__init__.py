"""What an operator does with an application's history: bring it in, take it out, compare it.

Persons are erased (`erase`), old periods let go (`prune`), and servers copied (`copying`). `doctor`
looks whether all is well.

One module a job; what they share: `runs` (through outages, so that a run can be resumed), `tables`
(a model's rows as marks), `moments` (their times on the application's clock), `flags`.
"""
