"""The walk over every route with two orgs, which shows that neither can read, change or infer the other's.

`records` says how those of each path are made, `scenes` what their owner sends, `references` which fields
name one: there a new kind of record is added. `walk` does the rest from the OpenAPI document.
"""
