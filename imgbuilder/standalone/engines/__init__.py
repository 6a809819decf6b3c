"""Build engines: programs that make an image of a Dockerfile, one adapter a module, behind one protocol.

An adapter runs command-line programs, and never imports an engine's library. It builds; it never pushes.
"""
