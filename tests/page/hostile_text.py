"""A text that would do harm where it is obeyed, and what is to be seen of it."""

HOSTILE = "<script>alert(1)</script> \"quoted\" 'so' & &amp; \x1b[31m \u202egnp.exe \x00 ]]> --> </style>"
SHOWN = "<script>alert(1)</script> \"quoted\" 'so' & &amp; [31m gnp.exe ]]> --> </style>"
