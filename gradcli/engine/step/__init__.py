"""A cell's step as a program: short passes from its graph to lists of instructions, which an executor runs.

1. `rewrite`: the equations once more, with what is known before the loop as one term, and neighbouring lags as one
   vector. 2. `linearise`: the cut points of the step, and what each takes of which, with which derivative. 3. `place`:
   where every value lies. 4. `forward`, `backward`, `coefficients`: instructions. 5. `peephole`: neighbours become one.

`plan` puts them together; `listing` writes a program for people.
"""
