"""Interchange: the official CLI's backup directories, read into a repository and written from one."""
