"""End to end: names and arrays in, values out; one room a question."""
