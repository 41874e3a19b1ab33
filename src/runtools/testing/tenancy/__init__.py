"""The walk over every route with two orgs, which shows that neither can read, change or infer the other's.

`places` says how the records of each path are made, and is where a new kind of record is added; `walk`
does the rest from the OpenAPI document.
"""
