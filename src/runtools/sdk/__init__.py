"""The Python SDK: public shapes, the async client and the sync client generated from it."""
