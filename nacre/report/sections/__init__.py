"""The sections of the report, their figures and charts."""
