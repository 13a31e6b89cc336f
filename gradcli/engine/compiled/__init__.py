"""The compiled interpreter of step programs: an extension in C, built on installation where there is a compiler.

`gradcli.engine.compiled.table` makes its programs; where the extension was not built, that module says so.
"""
