"""The defaults of the fields that options of the command line stand for, and of options that are no fields.

The fields are those of `gradcli.spec.models.Spec`, which takes them from here: a help text shows them without the
models, whose import takes longer than the help.
"""

HIDDEN_SIZE = 64
INPUT_SIZE = 32
SEQ_LEN = 100
BATCH_SIZE = 16
TRIALS = 4
SEED = 0
CLIP_NORM = 1.0
#: Of Lyapunov exponents, so many are computed: the leading ones.
LYAPUNOV_EXPONENTS = 8
