"""Damages every file that the program reads, in every way, and tells how each start ends.

`__main__` lists and runs the cases, `damages` are the ways, `outcomes` the ends. `checkpoints`,
`weights`, `images`, `records` and `downloads` are the kinds of files: each makes what is damaged
and judges what the program does with it. `pool` and `worker` are the processes that run the cases.
"""
