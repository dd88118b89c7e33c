"""How each step of a layer is really executed, by the names of ``Plan.implementation``: one file an operation.

Every lowering declares its kernel calls in order and what autograd keeps of them; the trainer's kernels do exactly these.
"""
