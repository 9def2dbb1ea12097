"""What slime 0.3.1 does around the two functions of credit's, written from its contract for a CPU.

It stands in where slime is not installed, since no package index has it and its processes need GPUs. The
names, arguments and orders are slime's; what has nothing to do with advantages is left out.
"""
